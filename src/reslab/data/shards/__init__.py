"""Tar shards of images, on disk or behind a URL."""
