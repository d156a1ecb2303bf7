"""Evaluate a model on a split. The same as `echomen evaluate`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("evaluate")
