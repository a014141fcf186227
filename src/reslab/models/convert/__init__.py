"""Weights from other libraries, and for them."""
