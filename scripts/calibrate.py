"""Calibrate a model's prediction intervals. The same as `echomen calibrate`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("calibrate")
