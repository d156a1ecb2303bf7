"""Train EchoMEN, on one or several processes. The same as `echomen train`, which documents it.

accelerate launch scripts/train.py paper --data_dir EchoNet-Dynamic --output_dir runs/paper
"""

from echomen_hf.cli import main


if __name__ == "__main__":
    main("train")
