"""A model and a set to a report; a model is any function from images to scores."""
