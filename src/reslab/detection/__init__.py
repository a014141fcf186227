"""Faster R-CNN on a residual trunk."""
