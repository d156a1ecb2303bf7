"""Arguments of the videos that a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from ..model.video_reading_echomen import DECODERS


__all__ = ["LAYOUT_OPTIONS", "DataArguments", "SimulationArguments"]

LAYOUT_OPTIONS = ("layout", "view", "fold", "columns", "split_by", "split_file", "require_tracings")


@dataclass
class DataArguments:
    """Videos to train on, and the way clips are taken from them."""

    data_dir: str | None = HfArg(default=None, help="Folder of the data set, or a table of videos.")
    embeddings: str | None = HfArg(
        default=None,
        help="File of vectors of the clips, as `echomen embed` writes it, on which stage 2 trains instead of the "
        "videos, and stage 1 the adapter of a model with `adapter_size`. Labels and splits come from data_dir, or "
        "else from its columns EF and Split.",
    )
    layout: str | None = HfArg(
        default=None,
        help="Layout of the data: echonet_dynamic, echonet_pediatric, camus, mimic_lvvol or table. Defaults to the "
        "one that the folder is recognised by.",
    )
    view: str | None = HfArg(
        default=None, help="View of the heart: A4C or PSAX (echonet_pediatric), 4CH or 2CH (camus)."
    )
    fold: int | None = HfArg(default=None, help="Test fold, 0 to 9 (echonet_pediatric).")
    columns: dict | str | None = HfArg(
        default=None, help="Columns of a table by meaning, such as path=file,ejection_fraction=LVEF,patient=id."
    )
    split_by: str | None = HfArg(
        default=None,
        help="patient: divide the videos at random by patient; none: all are test videos. Defaults to the splits of "
        "the data.",
    )
    split_file: str | None = HfArg(
        default=None, help="File with the division by patient. Defaults to echomen_splits.csv beside the data."
    )
    require_tracings: bool = HfArg(
        default=False, help="Drop videos without volume tracings, as the paper did with five of them."
    )
    validate_data: str = HfArg(
        default="headers",
        metadata={"choices": ["headers", "frames", "none"]},
        help="Search for bad videos before training: headers opens every file, frames decodes it.",
    )
    crop_padding: int = HfArg(
        default=12, help="Largest random shift of a training clip in pixels of the model's input."
    )
    eval_protocol: str = HfArg(default="center", help="Clips per video on VAL: center, windows, all or a number.")
    statistics_videos: int = HfArg(
        default=128, help="Training videos from which the mean and deviation of pixels are measured."
    )
    frame_cache: str | None = HfArg(
        default=None,
        help="Folder for decoded frames (22 GB for EchoNet-Dynamic at 112 pixels). Defaults to none: every "
        "epoch decodes the videos.",
    )
    interval_coverage: float = HfArg(
        default=0.9,
        help="Share of the patients of every category whose EF the prediction intervals are to contain; they "
        "are calibrated on VAL with the protocol windows. 0: no intervals.",
    )
    decoder: str = HfArg(
        default="pyav",
        metadata={"choices": list(DECODERS)},
        help="Decoder of videos that are not DICOM; simplejpeg is faster for Motion JPEG in AVI.",
    )

    @property
    def layout_options(self) -> dict[str, Any]:
        """Layout and its options as `read_data_set` takes them; without those that are not set."""
        options = {name: getattr(self, name) for name in LAYOUT_OPTIONS}
        return {name: value for name, value in options.items() if value is not None and value is not False}


@dataclass
class SimulationArguments:
    """Videos to simulate instead of a data set; no clip is shown twice."""

    simulated_videos: int = HfArg(default=0, help="Simulated videos per epoch. 0: train on the data set in data_dir.")
    simulated_val_videos: int = HfArg(
        default=400, help="Simulated videos of the validation split, the same in every epoch."
    )
    simulation_profile: str = HfArg(
        default="wide", help="Ranges of simulated patients and machines: wide, or another profile."
    )
    simulated_distribution: str = HfArg(
        default="uniform",
        metadata={"choices": ["uniform", "categories", "echonet"]},
        help="Distribution of simulated EF.",
    )
    still_share: float = HfArg(
        default=0.0, help="Share of simulated training videos that show a still frame, with an EF of 0."
    )
    mirrored_share: float = HfArg(default=0.0, help="Share of simulated videos with left and right exchanged.")
    reversed_share: float = HfArg(default=0.0, help="Share of simulated videos that run backwards.")
    brightness_factor: float = HfArg(
        default=1.0, help="Largest factor by which gray values of simulated videos are multiplied or divided."
    )
    gamma_factor: float = HfArg(
        default=1.0, help="Largest factor by which the exponent of gray values of simulated videos differs from 1."
    )
    zoom_factor: float = HfArg(
        default=1.0, help="Largest factor by which simulated videos are enlarged or made smaller."
    )
    vertical_smoothing: float = HfArg(
        default=0.0, help="Largest share of the vertical detail of 1 to 3 pixels that simulated videos lose."
    )
    whole_fan_share: float = HfArg(
        default=0.0, help="Share of simulated videos that show the whole fan alone, as cut out of a screen."
    )
    lowest_simulated_fps: float = HfArg(default=25.0, help="Lowest frame rate of simulated training videos.")
    simulation_cache: str | None = HfArg(
        default=None,
        help="Folder for simulated training videos (1 MB each), which every epoch then shows again with another "
        "brightness, zoom and so on. Defaults to none: every epoch simulates new hearts.",
    )
