"""Pipeline from an echocardiogram file to its ejection fraction."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.pt_utils import PipelineChunkIterator, PipelineIterator, PipelinePackIterator

from .clip_quality_echomen import check_clip
from .clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol, protocol_starts
from .echo_video_echomen import EchoVideo, require_moving
from .frame_arrays_echomen import is_file, to_echo_video
from .heart_failure_category_echomen import category_probabilities
from .prediction_interval_echomen import calibration_for
from .video_prediction_echomen import average_clips, estimate_clips, standard_deviation
from .video_reading_echomen import read_video


__all__ = ["EjectionFractionPipeline"]

# A long video has hundreds of clips in the protocol `all`, of 5 MB each at full size.
CLIPS_AT_ONCE = 8


class EjectionFractionPipeline(ChunkPipeline):
    r"""Ejection fraction of echocardiograms: `pipeline("ejection-fraction", model=...)`.

    The options of a call can also be given to the constructor, see `__call__`. So can `engine`, which runs the encoder
    instead of the model: a function from clips, float32, shape (B, T, C, H, W), to embeddings, float32, shape (B, D).
    `Predictor` of the package `echomen_hf` has one for every checkpoint. With an engine, `device` defaults to that of
    the model.

    ```python
    >>> from transformers import pipeline
    >>> from echomen_hf import Predictor

    >>> predictor = Predictor("runs/demo/model")
    >>> parts = {"model": predictor.model, "video_processor": predictor.processor, "engine": predictor.engine}
    >>> estimate = pipeline("ejection-fraction", **parts)
    ```

    `outline=echomen_hf.outline.outline_video` adds the outline of the left ventricle, and compares both readings.
    Without it, the pipeline of the package looks for the ventricle in a few frames, and calls a video doubtful that
    does not show it as an apical four-chamber view does; turn this off for models of other views, by
    `check_view=False`. The copy that travels with a checkpoint has no outliner, and does not look.

    The folders of `echomen export` bring their own, `pipeline("ejection-fraction", model="runs/demo/int8")`.

    Returns one dictionary per video:
        - **ejection_fraction** (`float`) -- EF in percent.
        - **interval** (`tuple[float, float]` or `None`) -- lowest and highest EF in percent that hold the true one
          with the probability that `model.config.interval_calibration` states; `None` for a model without it, or for
          another protocol than it was calibrated for.
        - **quality** (`str`) -- `good`, `doubtful` or `unusable`.
        - **reasons** (`tuple[str, ...]`) -- why the quality is not good, a sentence each.
        - **category** (`str`) -- `hfref`, `hfmref` or `hfpef`.
        - **category_probabilities** (`dict[str, float]`) -- share of a normal distribution around the EF that lies in
          each category. Its variance is the variance of the clips' EF plus the mean variance of the experts about
          their weighted mean. It tells how far clips and experts agree, and is not calibrated.
        - **standard_deviation** (`float`) -- that of this distribution, in EF points.
        - **experts** (`list[float]`) -- EF of every expert in percent, NaN for one that was not consulted.
        - **weights** (`list[float]`) -- weight of every expert.
        - **clips** (`list[dict]`) -- `start` in seconds and `ejection_fraction` of every clip.
        - **outline** (`VideoOutline` or `None`) -- masks, volumes and beats, if the pipeline was given `outline`.

    All EF of a video of quality `unusable` are NaN and its category is `None`, unless `force` is set.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    # Set by the package, and never by the copy of this file that travels with a checkpoint.
    shows_other_view: ClassVar[Callable[[EchoVideo], bool] | None] = None

    def __init__(
        self,
        *args: Any,
        engine: Callable[[torch.Tensor], torch.Tensor] | None = None,
        outline: Callable[[EchoVideo], Any] | None = None,
        check_view: bool = True,
        **kwargs: Any,
    ) -> None:
        if engine is not None and kwargs.get("device") is None:
            # Where the engine's model is; transformers would move the model to the first accelerator.
            kwargs["device"] = -1
        super().__init__(*args, **kwargs)
        self.engine = engine
        self.outline = outline
        self.check_view = check_view

    def _sanitize_parameters(
        self,
        protocol: str | int | None = None,
        fps: float | None = None,
        force: bool | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"Unknown arguments of the ejection-fraction pipeline: {', '.join(sorted(kwargs))}.")
        preprocess: dict[str, Any] = {}
        postprocess: dict[str, Any] = {}
        if protocol is not None:
            preprocess["protocol"] = postprocess["protocol"] = parse_protocol(protocol)
        if fps is not None:
            preprocess["fps"] = float(fps)
        if force is not None:
            postprocess["force"] = force
        return preprocess, {}, postprocess

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Estimate the ejection fraction of one video or many.

        Of a clip that is doubtful or unusable, such as one in colour or a black one, a `ClipQualityWarning` tells.

        Args:
            inputs: A video, which is a path, the bytes of a file, an open file (AVI, MP4, MKV, GIF, DICOM), or an
                array of shape (T, H, W), (T, H, W, C) or (T, C, H, W) on the 0-255 scale; a list of videos; or a
                generator or data set of them, such as `KeyDataset`.
            kwargs: `protocol`, the clips of a video that are averaged (`windows` by default, `all`, `everyN`,
                `beats`, `center` or a number); `fps`, the frame rate of arrays (the processor's `reference_fps` by
                default); `force`, `True` for an estimate of unusable videos;
                `batch_size`, clips per forward pass, filled across videos (1 by default); `num_workers`, 1 to read
                videos in another process.

        Returns:
            The dictionary that the class describes, a list of them, or an iterator over them.

        Raises:
            ValueError: If a video cannot be read or is a still image; the message says what to do.
        """
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        # The pipeline of transformers looks at the first of the list.
        return super().__call__(inputs, **kwargs) if not isinstance(inputs, list) or inputs else []

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Iterate over videos; that of a `ChunkPipeline` can only make batches with a tokenizer or image processor."""
        clips = PipelineChunkIterator(inputs, self.preprocess, preprocess_params)
        # More than one process would each go through all videos.
        loader = DataLoader(clips, batch_size, num_workers=min(num_workers, 1), collate_fn=collate_chunks)
        packs = PipelinePackIterator(loader, self.forward, forward_params, loader_batch_size=batch_size)
        return PipelineIterator(packs, self.postprocess, postprocess_params)

    def preprocess(
        self, inputs: Any, protocol: str = DEFAULT_PROTOCOL, fps: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Read a video and cut its clips."""
        if is_file(inputs):
            video = read_video(inputs)
        elif isinstance(inputs, EchoVideo):
            video = inputs
        else:
            video = to_echo_video(inputs, fps or self.video_processor.reference_fps)
        outline = None if self.outline is None else self.outline(require_moving(video))
        video = self.video_processor.crop_to_sector(video)
        spec = self.video_processor.clip_spec
        look = type(self).shows_other_view if self.check_view and outline is None else None
        findings = check_clip(video, spec, outline, None if look is None else look(video))
        systoles = None if outline is None else [beat.es_frame for beat in outline.beats]
        starts = protocol_starts(protocol, video.num_frames, video.fps, spec, systoles)
        for first in range(0, len(starts), CLIPS_AT_ONCE):
            some = starts[first : first + CLIPS_AT_ONCE]
            for number, (clip, start) in enumerate(zip(self.video_processor.make_clips(video, some), some), first + 1):
                # An array, which stays where it is: not every device has double precision.
                seconds = np.array([start / video.fps])
                is_last = number == len(starts)
                found = {"findings": [findings], "outline": [outline if is_last else None]}
                yield {"pixel_values": clip[None], "start": seconds, **found, "is_last": is_last}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {**estimate_clips(self.model, model_inputs.pop("pixel_values"), self.engine), **model_inputs}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], protocol: str = DEFAULT_PROTOCOL, force: bool = False
    ) -> dict[str, Any]:
        """Combine the clips of a video."""
        starts = np.concatenate([np.atleast_1d(output["start"]) for output in model_outputs]).tolist()
        findings, outline = model_outputs[0]["findings"], model_outputs[-1]["outline"]
        if isinstance(findings, list):  # of a batch of one, which is not taken apart
            (findings,), (outline,) = findings, outline
        names = [name for name in model_outputs[0] if name not in ("is_last", "findings", "outline", "start")]
        clips = {name: torch.cat([output[name] for output in model_outputs]) for name in names}
        config = self.model.config
        video = average_clips(
            "",
            clips,
            calibration_for(config, protocol),
            distribution=getattr(self.model, "training_distribution", None),
            findings=findings,
            force=force,
            outline=outline,
        )
        has_estimate = video.category is not None
        spread = standard_deviation(clips, config.prediction_head == "experts") if has_estimate else math.nan
        clip_values = video.clip_ejection_fractions.tolist()
        return {
            "ejection_fraction": video.ejection_fraction,
            "interval": video.interval,
            "quality": video.quality,
            "reasons": video.reasons,
            "category": video.category,
            "category_probabilities": category_probabilities(video.ejection_fraction, spread) if has_estimate else {},
            "standard_deviation": spread,
            "experts": video.expert_predictions.tolist(),
            "weights": video.expert_weights.tolist(),
            "clips": [{"start": start, "ejection_fraction": ef} for start, ef in zip(starts, clip_values)],
            "outline": outline,
        }

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model, video processor and the code of the pipeline."""
        given = getattr(self.model.config, "custom_pipelines", None)
        super().save_pretrained(save_directory, **kwargs)
        # Left in place, the next folder that the model is saved to would promise code that it does not hold.
        self.model.config.custom_pipelines = given
        if given is None:
            del self.model.config.custom_pipelines
        self.video_processor.save_pretrained(save_directory)


def collate_chunks(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Join clips, as `preprocess` yields them, to a batch."""
    return {
        "pixel_values": torch.cat([chunk["pixel_values"] for chunk in chunks]),
        "start": np.concatenate([chunk["start"] for chunk in chunks]),
        "findings": [findings for chunk in chunks for findings in chunk["findings"]],
        "outline": [outline for chunk in chunks for outline in chunk["outline"]],
        "is_last": torch.tensor([chunk["is_last"] for chunk in chunks]),
    }
