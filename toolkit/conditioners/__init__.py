"""Conditioners: what reads texts for priors."""
