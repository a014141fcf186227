"""Trained networks by name: those in this folder, and the weights that others have published."""
