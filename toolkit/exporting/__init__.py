"""A run as graphs that other programs run."""
