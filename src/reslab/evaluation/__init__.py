"""Evaluate classifiers: a model (any function from images to scores) and a set give a report."""
