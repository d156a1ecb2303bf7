"""Export a model to OpenVINO or ONNX. The same as `echomen export`, which documents it."""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("export")
