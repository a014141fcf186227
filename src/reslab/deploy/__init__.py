"""Export models to other runtimes, prove each export, and run exported files."""
