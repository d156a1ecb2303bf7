"""Layouts of public data sets."""
