"""What each verb does, as functions that return values and print nothing."""
