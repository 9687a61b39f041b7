"""Speech and sound for the toolkit; its parts are registered as entry points."""

PACKAGE = "discrete-toolkit-audio"
"""Under this name scans are kept in the user's cache folder."""
