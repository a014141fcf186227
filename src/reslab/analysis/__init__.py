"""Analyses of trained networks."""
