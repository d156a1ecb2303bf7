"""`python -m echomen_hf.cli`, the same as `echomen`."""

from . import main


if __name__ == "__main__":
    main()
