"""Size limits of an upload, checked before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.echo_video_echomen import VideoInfo
from ..model.video_source_echomen import VideoReadError


__all__ = ["UploadLimits"]

_LARGEST_ASPECT = 4  # a strip would become very large where its short side is made that of the model
_MEGABYTE = 1_000_000
_CUT = "cut the clip to a few heart beats"


@dataclass(frozen=True)
class UploadLimits:
    """Largest clip that a visitor may upload.

    Args:
        max_megabytes: Size of the file in MB (1,000,000 bytes).
        max_frames: Number of frames. The default is 20 s at 50 frames per second.
        max_frame_pixels: Height times width of one frame. The default is 1920 x 1200.
        max_video_pixels: Frames times height times width, which is the memory in bytes of the decoded clip.

    Raises:
        ValueError: If a limit is not positive, or `max_frames` is less than the two frames that EF needs.
    """

    max_megabytes: float = 100
    max_frames: int = 1000
    max_frame_pixels: int = 1920 * 1200
    max_video_pixels: int = 400_000_000

    def __post_init__(self) -> None:
        for name in ("max_megabytes", "max_frame_pixels", "max_video_pixels"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.max_frames < 2:
            raise ValueError(f"max_frames must be at least 2, got {self.max_frames}.")

    @property
    def max_bytes(self) -> int:
        """Size of the file in bytes."""
        return int(self.max_megabytes * _MEGABYTE)

    @property
    def max_process_bytes(self) -> int:
        """Memory of the process that reads a clip: the frames twice while they are joined, and what decoders need."""
        return 2 * self.max_video_pixels + 400 * _MEGABYTE

    def check_file_size(self, num_bytes: int, name: str) -> None:
        """Refuse a file of more than `max_megabytes`."""
        if num_bytes > self.max_bytes:
            problem = f"has {num_bytes / _MEGABYTE:.1f} MB; at most {self.max_megabytes:g} MB are read here"
            raise VideoReadError.about(name, problem, f"{_CUT} or export it compressed")

    def check_header(self, info: VideoInfo, name: str) -> None:
        """Refuse a clip whose header promises too many or too large frames."""
        if info.num_frames > self.max_frames:
            seconds = info.num_frames / info.fps
            problem = f"has {info.num_frames:,} frames ({seconds:,.0f} s); at most {self.max_frames:,} are read here"
            raise VideoReadError.about(name, problem, _CUT)
        frame_pixels = info.height * info.width
        if frame_pixels > self.max_frame_pixels:
            problem = (
                f"has frames of {info.width} x {info.height} pixels; "
                f"at most {self.max_frame_pixels / 1e6:.1f} million pixels are read here"
            )
            raise VideoReadError.about(name, problem, "export it at a smaller size; 640 x 480 is plenty")
        if max(info.height, info.width) > _LARGEST_ASPECT * min(info.height, info.width):
            problem = f"has frames of {info.width} x {info.height} pixels, a shape that no echo has"
            raise VideoReadError.about(name, problem, "export the whole picture at its acquired size")
        if info.num_frames * frame_pixels > self.max_video_pixels:
            fitting = self.max_video_pixels // frame_pixels
            problem = (
                f"has {info.num_frames:,} frames of {info.width} x {info.height} pixels; "
                f"at most {fitting:,} frames of this size are read here"
            )
            raise VideoReadError.about(name, problem, f"{_CUT} or export it at a smaller size")
