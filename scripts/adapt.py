"""Adapt a model to the videos of one site. The same as `echomen adapt`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("adapt")
