"""Parts of a stranger's package; the toolkit finds them by their entry points."""
