"""Write the vectors of the clips of a data set. The same as `echomen embed`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("embed")
