"""Discriminators of data of any number of axes."""
