"""Changes of a clip that show whether a model uses the motion of the heart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..model.echo_video_echomen import EchoVideo


__all__ = ["INVARIANCES", "motion_evidence"]


def still(video: EchoVideo) -> EchoVideo:
    """Repeat the first frame."""
    return replace(video, frames=np.repeat(video.frames[:1], video.num_frames, axis=0))


def backwards(video: EchoVideo) -> EchoVideo:
    """Play a clip from its end to its beginning, which changes no volume."""
    return replace(video, frames=np.ascontiguousarray(video.frames[::-1]))


def mirrored(video: EchoVideo) -> EchoVideo:
    """Exchange left and right; some laboratories show the apical view mirrored."""
    return replace(video, frames=np.ascontiguousarray(video.frames[:, :, ::-1]))


def half_frame_rate(video: EchoVideo) -> EchoVideo:
    """Leave out every second frame, and state half the frame rate."""
    return replace(video, frames=video.frames[::2], fps=video.fps / 2)


def scaled_brightness(factor: float) -> Callable[[EchoVideo], EchoVideo]:
    """Make a function that multiplies all gray values."""

    def change(video: EchoVideo) -> EchoVideo:
        return replace(video, frames=np.clip(np.rint(video.frames * factor), 0, 255).astype(np.uint8))

    return change


INVARIANCES: dict[str, Callable[[EchoVideo], EchoVideo]] = {
    "backwards": backwards,
    "mirrored": mirrored,
    "half_frame_rate": half_frame_rate,
    "brightness_0.6": scaled_brightness(0.6),
    "brightness_1.6": scaled_brightness(1.6),
}
"""Changes that leave the ejection fraction as it is."""


def motion_evidence(
    estimate: Callable[[EchoVideo], float], videos: Iterable[EchoVideo]
) -> dict[str, NDArray[np.float64]]:
    """Estimate clips as they are and changed; every array of EFs has shape (clips,)."""
    changes = {"unchanged": lambda video: video, "still": still, **INVARIANCES}
    estimates: dict[str, list[float]] = {name: [] for name in changes}
    for video in videos:
        for name, change in changes.items():
            estimates[name].append(estimate(change(video)))
    return {name: np.array(values) for name, values in estimates.items()}
