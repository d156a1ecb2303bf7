"""Published R(2+1)D weights as a checkpoint: model, video processor and card."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from transformers import set_seed

from ..data import pixel_statistics
from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import EchoMENModel
from ..model.video_processing_echomen import EchoMENVideoProcessor
from ..runs.files import file_checksum, write_json
from ..runs.run_folder import RUN_FILE
from .model_card import CARD_TAGS
from .repository import write_card


__all__ = ["import_weights"]

TEMPLATE = Path(__file__).with_name("imported_weights_card.md")

# By the head that the weights have.
LICENSES = {
    "regression": ("research-use-only", "https://echonet.github.io/dynamic/"),
    None: ("torchvision-kinetics-400", "https://github.com/pytorch/vision#pre-trained-model-license"),
}


def import_weights(
    file: str | Path,
    output: str | Path,
    *,
    config: EchoMENConfig | None = None,
    videos: Sequence[dict[str, Any]] | None = None,
    seed: int = 0,
) -> EchoMENModel:
    """Convert a file of R(2+1)D weights into a checkpoint.

    The card states the licence of EchoNet-Dynamic for weights with a regression head, and that of torchvision for all
    others. `run.json` records the file's name and checksum.

    Args:
        file: EchoNet-Dynamic's release, torchvision's file of Kinetics-400 weights, or any other in these formats; see
            `EchoMENModel.from_backbone_checkpoint`.
        output: New folder for model, video processor and card.
        config: Configuration of the model. Defaults to the paper's, which both files fit.
        videos: Rows of a training split, of which the mean and standard deviation of the pixels are measured. Defaults
            to those of EchoNet-Dynamic, 32.6 and 49.9.
        seed: Seed of the parts that the file does not have, and of the choice of videos to measure.

    Returns:
        The model. Its `prediction_head` is `"regression"` if the file has a head of one output, and else `None`: it
            then cannot estimate an ejection fraction before it is trained.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the folder is not empty, the file holds more than tensors, or tensors that do not fit.
    """
    file, output = Path(file), Path(output)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty; name a new folder as `--output`.")
    config = EchoMENConfig() if config is None else copy.deepcopy(config)
    config.prediction_head = None  # until the file brings a head
    set_seed(seed)
    model = EchoMENModel.from_backbone_checkpoint(file, config)
    processor = EchoMENVideoProcessor.for_model(model.config)
    if videos is not None:
        mean, std = pixel_statistics(videos, processor, seed=seed)
        processor.image_mean, processor.image_std = [mean], [std]
    license_name, license_link = LICENSES[model.config.prediction_head]
    checksum = file_checksum(file)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    write_json(output / RUN_FILE, {"run.backbone_checkpoint": file.name, "run.backbone_sha256": checksum})
    card = ModelCard.from_template(
        ModelCardData(
            license="other",
            license_name=license_name,
            license_link=license_link,
            library_name="transformers",
            pipeline_tag="video-classification",
            tags=list(CARD_TAGS),
        ),
        template_path=str(TEMPLATE),
        title=output.name,
        file=file.name,
        checksum=checksum,
        config=model.config,
        mean=processor.image_mean[0],
        std=processor.image_std[0],
        statistics="EchoNet-Dynamic's training split" if videos is None else "measured on the videos that were given",
    )
    write_card(card, output)
    return model
