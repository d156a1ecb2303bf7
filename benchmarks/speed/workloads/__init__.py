"""Workloads: the reference of each comparison, and the implementations of this package."""
