"""A recipe to a run folder."""
