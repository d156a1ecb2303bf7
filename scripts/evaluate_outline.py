"""Measure how well the left ventricle is outlined. The same as `echomen evaluate-outline`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("evaluate-outline")
