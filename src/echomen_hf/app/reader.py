"""Estimate and evidence of a clip."""

from __future__ import annotations

import functools
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoints import SMALL_MODEL_NAME, is_small_model
from ..inference import Predictor
from ..labels import HEART_FAILURE_CATEGORIES
from ..model.clip_quality_echomen import ClipQualityWarning, Quality
from ..model.clip_sampling_echomen import DEFAULT_PROTOCOL
from ..model.echo_video_echomen import EchoVideo
from ..model.pipeline_echomen import EjectionFractionPipeline
from ..outline import VideoOutline, load_outliner, outline_video
from ..runs.files import folder_or_id
from ..simulation import simulate_echo
from .intake import MAX_WINDOWS, ReceivedClip, num_windows, receive_frames
from .saliency import DEFAULT_STEPS, motion_saliency


__all__ = ["ClipReader", "Reading", "simulate_clip"]

_SAMPLE_FRAMES = 150
_SAMPLE_RANGE = (15.0, 75.0)  # where a drawn category begins and ends, so that the heart is one that exists


@dataclass(frozen=True)
class Reading:
    """Estimate of a clip with its evidence, see `EjectionFractionPipeline`; EF in percent."""

    ejection_fraction: float  # NaN if the clip is unusable
    quality: Quality
    reasons: tuple[str, ...]
    interval: tuple[float, float] | None
    coverage: float | None
    standard_deviation: float
    category: str | None
    category_probabilities: dict[str, float]
    experts: list[float]  # NaN for an expert that was not used
    weights: list[float]
    window_starts: list[float]
    window_ejection_fractions: list[float]
    window_seconds: float
    seconds: float
    outline: VideoOutline | None = None


class ClipReader:
    """A loaded model that reads clips; see `build_app` for the arguments."""

    def __init__(
        self, model: str | Path | None = None, device: str | None = None, saliency_steps: int = DEFAULT_STEPS
    ) -> None:
        if saliency_steps < 0:
            raise ValueError(f"saliency_steps must be 0 or more, got {saliency_steps}.")
        self.saliency_steps = saliency_steps
        predictor = Predictor(model, device=device, check_view=False)  # the pipeline outlines every frame
        self.model = predictor.model.requires_grad_(False)
        self.processor = predictor.processor
        self.pipeline = EjectionFractionPipeline(
            model=self.model,
            video_processor=self.processor,
            device=predictor.device,
            batch_size=4,
            outline=functools.partial(outline_video, outliner=load_outliner().to(predictor.device)),
        )
        self.is_small_model = model is None or is_small_model(model)
        if model is None or self.is_small_model:
            self.name = SMALL_MODEL_NAME
        else:
            # Where the folder lies on the server is nobody's business.
            self.name = folder_or_id(model)

    def read(self, video: EchoVideo) -> Reading:
        """Estimate the ejection fraction of a grayscale video."""
        begin = time.perf_counter()
        is_long = num_windows(video.num_frames, video.fps, self.processor.clip_spec) > MAX_WINDOWS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClipQualityWarning)  # the page shows the reasons
            result: dict[str, Any] = self.pipeline(video, protocol=MAX_WINDOWS if is_long else DEFAULT_PROTOCOL)
        return Reading(
            **{
                name: result[name]
                for name in (
                    "ejection_fraction",
                    "quality",
                    "reasons",
                    "interval",
                    "standard_deviation",
                    "category",
                    "category_probabilities",
                    "experts",
                    "weights",
                    "outline",
                )
            },
            coverage=None if result["interval"] is None else self.model.config.interval_calibration["coverage"],
            window_starts=[clip["start"] for clip in result["clips"]],
            window_ejection_fractions=[clip["ejection_fraction"] for clip in result["clips"]],
            window_seconds=min(self.processor.clip_spec.span(video.fps), video.num_frames) / video.fps,
            seconds=time.perf_counter() - begin,
        )

    def look(self, video: EchoVideo, deadline: float = math.inf) -> NDArray[np.float32]:
        """Saliency of a grayscale video, see `motion_saliency`."""
        return motion_saliency(self.model, self.processor, video, self.saliency_steps, deadline)


def simulate_clip(seed: int, category: str | None = None) -> ReceivedClip:
    """Simulate a clip of 3 s, of a heart-failure category or else of EchoNet-Dynamic's distribution."""
    if seed < 0:
        raise ValueError(f"The seed must be 0 or more, got {seed}.")
    if category is not None and category not in HEART_FAILURE_CATEGORIES:
        raise ValueError(f"Unknown category {category!r}: choose one of {', '.join(HEART_FAILURE_CATEGORIES)}.")
    rng = np.random.default_rng(seed)
    ejection_fraction = None
    if category is not None:
        low, high = HEART_FAILURE_CATEGORIES[category]
        ejection_fraction = float(rng.uniform(max(low, _SAMPLE_RANGE[0]), min(high, _SAMPLE_RANGE[1])))
    echo = simulate_echo(rng, ejection_fraction, num_frames=_SAMPLE_FRAMES, profile="wide")
    return receive_frames(echo.frames, echo.fps, echo.ejection_fraction, seed)
