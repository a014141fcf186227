"""Fast paths on CPUs: they know tensors only, and are put into a network from above."""
