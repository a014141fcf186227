"""Devices, processes, threads and files."""
