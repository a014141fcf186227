"""The folder doctor: what would spoil a run, and how to mend it."""
