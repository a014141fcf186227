"""Data sets: from bytes on disk to tensors, independent of networks."""
