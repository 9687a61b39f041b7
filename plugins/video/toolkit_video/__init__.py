"""Video for the toolkit; its parts are found by their entry points."""
