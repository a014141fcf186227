"""Studies: sets of runs that reproduce the paper's tables and figures."""
