"""A run as one HTML page: curves, pictures, sounds, figures and configuration, with nothing outside the file."""
