"""Processes that train together, started here or by torchrun."""
