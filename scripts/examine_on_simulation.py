"""Measure a model on simulated hearts. The same as `echomen examine`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("examine")
