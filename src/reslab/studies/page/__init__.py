"""Run folders to pages, figures and tables."""
