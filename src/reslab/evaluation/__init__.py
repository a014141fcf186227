"""A model and a set to a report; a model is any function from pictures to scores."""
