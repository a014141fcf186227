"""Turn run folders into pages, figures and tables."""
