"""Evaluate classifiers: score a set with any function from images to scores, and report errors."""
