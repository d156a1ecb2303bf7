"""Benchmarks and experiments; not installed."""
