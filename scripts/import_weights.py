"""Convert published R(2+1)D weights into a checkpoint. The same as `echomen import-weights`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("import-weights")
