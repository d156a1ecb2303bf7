"""Check of everything that depends on a GPU, with its results as one JSON file."""
