"""The folder doctor: find problems that would spoil a run, and advise how to fix them."""
