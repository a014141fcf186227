"""Bytes on disk to tensors; independent of networks."""
