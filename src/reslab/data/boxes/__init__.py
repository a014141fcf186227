"""Data sets for detection: images with boxes."""
