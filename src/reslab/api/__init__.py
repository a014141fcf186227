"""The verbs as functions that return values and print nothing."""
