"""Tests classifiers: a model, any function from images to scores, on a set -> a report."""
