"""Publish a model on the Hub. The same as `echomen push`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("push")
