"""Device, processes, threads and files."""
