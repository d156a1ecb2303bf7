"""Directory of the `evaluate` module; `evaluate.load` copies `ef_regression.py` to its cache and imports the copy."""
