"""Looks inside a network."""
