"""Run everything once on synthetic data. The same as `echomen demo`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("demo")
