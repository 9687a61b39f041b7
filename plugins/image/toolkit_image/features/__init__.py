"""Frozen networks that see pictures as people do: features for distances, from weights that are on the machine."""
