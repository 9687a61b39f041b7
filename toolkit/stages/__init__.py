"""A run of two stages, trained from a checked configuration: what goes before, into and out of their loops."""
