"""Sets of images with boxes."""
