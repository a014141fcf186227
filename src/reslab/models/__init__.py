"""Networks as functions of their configuration; nothing here knows of data, devices or runs."""
