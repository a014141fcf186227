"""Triton kernels for the 6n+2 nets on a GPU."""
