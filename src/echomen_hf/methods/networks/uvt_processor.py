"""Video processor of UVT, which knows how training clips are made."""

from typing import Literal

from transformers.processing_utils import Unpack

from ...model.video_processing_echomen import EchoMENVideoProcessor, EchoMENVideosKwargs


class UVTVideosKwargs(EchoMENVideosKwargs, total=False):  # type: ignore[call-arg]
    """Options of `UVTVideoProcessor` besides those of `EchoMENVideoProcessor`.

    Args:
        training_clip (`str`, *optional*): See the class.
    """

    training_clip: Literal["mirrored_beat", "video"] | None


class UVTVideoProcessor(EchoMENVideoProcessor):
    r"""`EchoMENVideoProcessor` with the choice of UVT's training clips; where it is used to predict, nothing differs.

    Args:
        training_clip (`str`, *optional*, defaults to `"mirrored_beat"`):
            `"mirrored_beat"` goes back and forth between the end-diastolic and the end-systolic frame that were
            traced, `"video"` takes frames of the video one after the other.
    """

    # The code that travels with a checkpoint is that of the base class, and this one stays behind.
    _auto_class = None
    valid_kwargs = UVTVideosKwargs
    training_clip = "mirrored_beat"

    def __init__(self, **kwargs: Unpack[UVTVideosKwargs]) -> None:
        super().__init__(**kwargs)
        if self.training_clip not in ("mirrored_beat", "video"):
            raise ValueError(f"`training_clip` must be 'mirrored_beat' or 'video', got {self.training_clip!r}.")


__all__ = ["UVTVideoProcessor"]
