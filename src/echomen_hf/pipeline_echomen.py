"""Pipeline from an echocardiogram file to its ejection fraction."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import Pipeline

from .clip_sampling_echomen import DEFAULT_PROTOCOL, parse_protocol, protocol_starts
from .heart_failure_category_echomen import category_probabilities, heart_failure_category
from .video_processing_echomen import is_file, to_grayscale
from .video_reading_echomen import EchoVideo, read_video, require_moving


class EjectionFractionPipeline(Pipeline):
    r"""Ejection fraction of echocardiograms: `pipeline("ejection-fraction", model=...)`.

    A video is a path or the bytes of a file (AVI, MP4, MKV, GIF, DICOM), or an array of shape (T, H, W), (T, H, W, C)
    or (T, C, H, W) on the 0-255 scale. Of every video the clips of a test protocol are evaluated and averaged.

    Args of a call (or of the constructor):
        protocol (`str`, *optional*, defaults to `"windows"`): Clips per video: `all`, `windows`, `center` or a number.
        fps (`float`, *optional*): Frame rate of arrays; the processor's `reference_fps` without.
        batch_size (`int`, *optional*, defaults to 1): Clips per forward pass.

    Returns one dictionary per video:
        - **ejection_fraction** (`float`) -- EF in percent.
        - **category** (`str`) -- `hfref`, `hfmref` or `hfpef`.
        - **category_probabilities** (`dict[str, float]`) -- share of a normal distribution around the EF that lies in
          each category. Its variance is the variance of the clips' EF plus the mean variance of the experts about
          their weighted mean. It tells how far clips and experts agree, and is not calibrated.
        - **standard_deviation** (`float`) -- that of this distribution, in EF points.
        - **experts** (`list[float]`) -- EF of every expert in percent, NaN for one that was not consulted.
        - **weights** (`list[float]`) -- weight of every expert.
        - **clips** (`list[dict]`) -- `start` in seconds and `ejection_fraction` of every clip.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def _sanitize_parameters(
        self, protocol: str | int | None = None, fps: float | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs:
            raise TypeError(f"Unknown arguments of the ejection-fraction pipeline: {', '.join(sorted(kwargs))}.")
        preprocess: dict[str, Any] = {}
        if protocol is not None:
            preprocess["protocol"] = parse_protocol(protocol)
        if fps is not None:
            preprocess["fps"] = float(fps)
        return preprocess, {}, {}

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Iterate over videos; a batch is filled with the clips of one video."""
        forward_params = {**forward_params, "batch_size": batch_size}
        return super().get_iterator(inputs, num_workers, 1, preprocess_params, forward_params, postprocess_params)

    def preprocess(
        self, inputs: Any, protocol: str = DEFAULT_PROTOCOL, fps: float | None = None
    ) -> dict[str, torch.Tensor]:
        """Read a video and cut its clips.

        Args:
            inputs: One video.
            protocol: Clips per video.
            fps: Frame rate of an array.

        Returns:
            `pixel_values`, (clips, T, C, H, W), and `starts`, in seconds, (clips,).
        """
        if is_file(inputs):
            video = read_video(inputs)
        elif isinstance(inputs, EchoVideo):
            video = inputs
        else:
            video = EchoVideo(to_grayscale(inputs), fps or self.video_processor.reference_fps, "array")
        require_moving(video)
        starts = protocol_starts(protocol, video.num_frames, video.fps, self.video_processor.clip_spec)
        return {
            "pixel_values": self.video_processor.make_clips(video, starts),
            "starts": torch.as_tensor(starts / video.fps, dtype=torch.float64),
        }

    def _forward(self, input_tensors: dict[str, torch.Tensor], batch_size: int = 1) -> dict[str, torch.Tensor]:
        pixel_values = input_tensors["pixel_values"].to(self.model.dtype)
        outputs = [self.model(pixel_values=clips) for clips in pixel_values.split(batch_size)]
        return {
            "starts": input_tensors["starts"],
            "ejection_fraction": torch.cat([output.ejection_fraction for output in outputs]),
            "expert_predictions": torch.cat([output.expert_predictions for output in outputs]),
            "expert_weights": torch.cat([output.expert_weights for output in outputs]),
        }

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Average the clips of a video.

        Args:
            model_outputs: EF, (clips,), and expert predictions and weights, (clips, M).

        Returns:
            The dictionary that the class describes.
        """
        clips = model_outputs["ejection_fraction"].cpu().double().numpy()
        experts = model_outputs["expert_predictions"].cpu().double().numpy()
        weights = model_outputs["expert_weights"].cpu().double().numpy()
        mean = float(clips.mean())
        variance = float(clips.var())
        if self.model.config.prediction_head == "experts":
            spread = np.nan_to_num(experts) - (weights * np.nan_to_num(experts)).sum(axis=1, keepdims=True)
            variance += float((weights * spread**2).sum(axis=1).mean())
        starts = model_outputs["starts"].cpu().tolist()
        return {
            "ejection_fraction": mean,
            "category": heart_failure_category(mean),
            "category_probabilities": category_probabilities(mean, variance**0.5),
            "standard_deviation": variance**0.5,
            "experts": average_experts(experts).tolist(),
            "weights": weights.mean(axis=0).tolist(),
            "clips": [{"start": start, "ejection_fraction": float(ef)} for start, ef in zip(starts, clips)],
        }

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save model, video processor and the code of the pipeline.

        Args:
            save_directory: Folder.
            kwargs: Options of the model's `save_pretrained`.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory)


def average_experts(expert_predictions: np.ndarray) -> np.ndarray:
    """Average every expert over the clips that consulted it.

    Args:
        expert_predictions: EF in percent, NaN where routing left an expert out, shape (clips, M).

    Returns:
        Mean EF of every expert in percent, NaN for one that no clip consulted, shape (M,).
    """
    total = np.nansum(expert_predictions, axis=0)
    counts = (~np.isnan(expert_predictions)).sum(axis=0)
    return np.divide(total, counts, out=np.full(total.shape, np.nan), where=counts > 0)


__all__ = ["EjectionFractionPipeline", "average_experts"]
