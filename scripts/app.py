"""Serve a web page that reads echo clips. The same as `echomen app`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("app")
