"""Estimate the ejection fraction of video or DICOM files. The same as `echomen predict`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("predict")
