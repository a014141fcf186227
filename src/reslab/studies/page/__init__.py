"""Report pages: figures, tables and findings from run folders."""
