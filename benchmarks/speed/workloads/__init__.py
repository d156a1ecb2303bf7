"""Workloads: the reference of each comparison, and this package's ways to do the same."""
