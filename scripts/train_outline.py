"""Train a network that outlines the left ventricle. The same as `echomen train-outline`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("train-outline")
