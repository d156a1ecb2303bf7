"""Compare methods. The same as `echomen compare`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("compare")
