"""Bytes on disk to tensors; nothing here knows of networks."""
