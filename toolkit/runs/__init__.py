"""A run on disk: the only package that knows its files and their formats."""
