"""Write a data set of simulated echocardiograms. The same as `echomen simulate`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("simulate")
