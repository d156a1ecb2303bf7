"""Reading of echo clips as grayscale frames: any container FFmpeg knows, DICOM, or NIfTI."""

from __future__ import annotations

from collections.abc import Sequence

from .dicom_reading_echomen import is_dicom, probe_dicom, read_dicom
from .echo_video_echomen import DEFAULT_FPS, EchoVideo, VideoInfo, usable_fps
from .frame_collector_echomen import DEFAULT_MAX_BYTES, frame_numbers
from .nifti_reading_echomen import is_nifti, probe_nifti, read_nifti
from .pyav_reading_echomen import decode_container, probe_container
from .simplejpeg_reading_echomen import decode_by_simplejpeg, load_simplejpeg
from .video_source_echomen import VideoSource, named_errors, resolve_source


__all__ = ["DECODERS", "probe_video", "read_video", "require_decoder"]

DECODERS = ("pyav", "simplejpeg")
"""What decodes everything that is neither DICOM nor NIfTI."""


def probe_video(source: VideoSource, default_fps: float | None = DEFAULT_FPS) -> VideoInfo:
    """Read what a clip is: number of frames, size and frame rate, as `read_video` would find them.

    The file is read through, since headers may be wrong; more than one frame is decoded only where its packets may not
    be its frames. So damage inside a later frame and a change of frame size stay unseen, and `read_video` refuses a
    clip that has them: `echomen_hf.data.validate_videos` with `level="frames"` finds such clips.

    Args:
        source: See `VideoSource`.
        default_fps: Frames per second to assume, with a warning, if the header states none or an absurd one; `None` to
            raise instead.

    Returns:
        What the file says; for DICOM the size after the crop that `read_dicom` makes.

    Raises:
        VideoReadError: If the file is missing, not a video, damaged or cut off.
    """
    resolved = resolve_source(source)
    with named_errors(resolved.name):
        if is_dicom(resolved):
            return probe_dicom(resolved, default_fps=default_fps)
        if is_nifti(resolved):
            return probe_nifti(resolved, default_fps=default_fps)
        num_frames, (height, width), fps = probe_container(resolved)
        return VideoInfo(num_frames, height, width, usable_fps(fps, resolved.name, default_fps))


def require_decoder(decoder: str) -> None:
    """Refuse a decoder that does not exist or is not installed, before anything is read."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.")
    if decoder == "simplejpeg":
        load_simplejpeg()


def read_video(
    source: VideoSource,
    indices: Sequence[int] | None = None,
    default_fps: float | None = DEFAULT_FPS,
    *,
    allow_truncated: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
    decoder: str = "pyav",
    measure_colour: bool = True,
) -> EchoVideo:
    """Decode a clip, or some of its frames, to grayscale.

    DICOM is recognised by its content and goes to `read_dicom`, NIfTI to `read_nifti`; everything else (AVI, MP4, MKV,
    GIF, ...; any size and colour) to FFmpeg. Luma is on the full 0-255 scale: limited-range video (16-235) is
    stretched, colour is converted with the weights of its own colour space. Frames are turned as the file says, and
    pixels that are not square are stretched. The rate is that of the time stamps; a clip with a variable rate is
    resampled evenly, with a warning.

    Args:
        source: See `VideoSource`.
        indices: Frame numbers to return, from 0, in this order, repeats allowed; `None` returns all frames. Nothing
            past the highest one is decoded, and in codecs without inter-frame prediction (MJPEG) nothing else either.
        default_fps: Frames per second to assume, with a warning, if the file states none or an absurd one; `None` to
            raise instead.
        allow_truncated: Use, with a warning, the frames before the damage where a file ends clearly before the number
            of frames that its header promises; wanted frames after it repeat the last one.
        max_bytes: Most bytes of grayscale frames to decode; guards against clips that do not fit in memory.
        decoder: One of `DECODERS`. "simplejpeg" is faster for Motion JPEG in AVI. It may differ by one grey level, and
            decodes gray and whole clips; PyAV still decodes everything else.
        measure_colour: Whether to measure `coloured_share`, which takes time and else is NaN; DICOM always has it.

    Returns:
        The clip. A still image comes back as a clip of one frame: see `require_moving`.

    Raises:
        VideoReadError: If the file is missing, not a video, damaged or too large, or does not have a wanted frame,
            or if the decoder cannot be used.
        ValueError: If an index is negative, or there is no such decoder.
    """
    require_decoder(decoder)
    numbers = frame_numbers(indices)
    resolved = resolve_source(source)
    with named_errors(resolved.name):
        if is_dicom(resolved):
            return read_dicom(
                resolved, numbers, default_fps=default_fps, allow_truncated=allow_truncated, max_bytes=max_bytes
            )
        if is_nifti(resolved):
            return read_nifti(
                resolved, numbers, default_fps=default_fps, allow_truncated=allow_truncated, max_bytes=max_bytes
            )
        decoded = (
            decode_by_simplejpeg(resolved, numbers, max_bytes, measure_colour) if decoder == "simplejpeg" else None
        )
        decoded = decoded or decode_container(
            resolved, numbers, allow_truncated=allow_truncated, max_bytes=max_bytes, measure_colour=measure_colour
        )
        fps = usable_fps(decoded.fps, resolved.name, default_fps)
        share, cells = decoded.coloured_share, decoded.coloured_cells
        return EchoVideo(decoded.frames, fps, resolved.name, share, coloured_cells=cells)
