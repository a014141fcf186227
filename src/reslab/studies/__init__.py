"""Turn sets of runs into the paper's tables and figures."""
