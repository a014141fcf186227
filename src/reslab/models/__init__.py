"""Networks as functions of their configuration; independent of data, devices and runs."""
