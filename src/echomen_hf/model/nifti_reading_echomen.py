"""Reading of NIfTI sequences: frames upright, pixels square, and the frame rate where it is stated."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from .echo_video_echomen import DEFAULT_FPS, EchoVideo, VideoInfo, is_usable_fps, require_frame_size, usable_fps
from .frame_collector_echomen import DEFAULT_MAX_BYTES, FrameCollector, frame_numbers, frames_to_read
from .gray_conversion_echomen import square_pixels, usable_aspect, usable_pixel_size
from .video_source_echomen import ResolvedSource, VideoReadError, VideoSource, named_errors, resolve_source


try:
    from nibabel import Nifti1Header, Nifti2Header
except ImportError:
    Nifti1Header = Nifti2Header = None

__all__ = ["is_nifti", "probe_nifti", "read_cfg", "read_nifti"]

_GZIP = b"\x1f\x8b"
_HEADERS = {348: Nifti1Header, 540: Nifti2Header}  # by their length in bytes
_MAX_OFFSET = 2**24  # bytes before the pixels; a header with its extensions has some hundred
_MAX_CFG = 2**16  # bytes
_MAX_FRAMES = 2**20
_SHORTEST_SECONDS = 1.3  # of a half beat that is played back: a clip of the default model, 63 frames at 50 per second
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}
_HALF_BEAT = re.compile(r"(?:.*_)?(\w+?)_half_sequence\.nii(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Sequence:
    """An open file at its first pixel, and what its header says."""

    name: str
    data: BinaryIO
    num_frames: int  # as stored; a half beat has more when it is played back
    size: tuple[int, int]  # width and height, the first of which varies fastest in the file
    kind: np.dtype[Any]
    slope: float
    intercept: float
    window: tuple[float, float] | None
    aspect: float
    mm_per_pixel: float | None  # once pixels are square
    fps: float | None
    is_half_beat: bool

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.size) * self.kind.itemsize

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame with square pixels."""
        height, width = square_pixels(np.broadcast_to(np.uint8(0), self.size[::-1]), self.aspect).shape
        return height, width

    def shown(self, stored: int) -> list[int]:
        """Stored frame of every frame of the clip, if so many are stored."""
        if not self.is_half_beat or stored < 2:
            return list(range(stored))
        beat = [*range(stored), *range(stored - 2, 0, -1)]
        fps = self.fps if self.fps is not None and is_usable_fps(self.fps) else DEFAULT_FPS
        num_beats = math.ceil((_SHORTEST_SECONDS * fps - 1) / len(beat))
        return [*(beat * max(num_beats, 1)), 0]

    def frames(self) -> Iterator[bytes]:
        """Yield the stored frames one after the other, up to where the file ends."""
        for _ in range(self.num_frames):
            try:
                stored = self.data.read(self.frame_bytes)
            except (EOFError, OSError, zlib.error):
                return
            if len(stored) < self.frame_bytes:
                return
            yield stored


def is_nifti(source: VideoSource | ResolvedSource) -> bool:
    """Whether a file has the header of a NIfTI file, compressed or not, or is named .nii or .nii.gz."""
    resolved = resolve_source(source)
    if resolved.name.lower().endswith((".nii", ".nii.gz")):
        return True
    with named_errors(resolved.name), resolved.open() as file:
        head = file.read(4)  # of other files no more, since they are read by many at once
        if head[:2] != _GZIP and _header_bytes(head) is None:
            return False
        head += file.read(4096)
    if head[:2] == _GZIP:
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, max(_HEADERS))
        except zlib.error:
            return False
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


def probe_nifti(source: VideoSource | ResolvedSource, default_fps: float | None = DEFAULT_FPS) -> VideoInfo:
    """Number of frames, size with square pixels, and frame rate of a sequence; see `read_nifti`."""
    resolved = resolve_source(source)
    with named_errors(resolved.name), _open_nifti(resolved) as sequence:
        height, width = sequence.shape
        _require_room(sequence, sequence.num_frames, height * width, DEFAULT_MAX_BYTES)
        found = sum(1 for _ in sequence.frames())
        failure = "" if found == sequence.num_frames else "the data end early"
        frames_to_read(resolved.name, None, found, sequence.num_frames, failure=failure)
        fps = usable_fps(sequence.fps, resolved.name, default_fps)
        return VideoInfo(len(sequence.shown(found)), height, width, fps)


def read_nifti(
    source: VideoSource | ResolvedSource,
    indices: Sequence[int] | None = None,
    default_fps: float | None = DEFAULT_FPS,
    *,
    allow_truncated: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> EchoVideo:
    """Decode a NIfTI sequence to grayscale frames.

    The array is (x, y, t) or (x, y, 1, t), x across the beam and y in depth; a frame comes out as (y, x). Pixels that
    are not square are stretched. 8-bit values are taken as stored; others are scaled by the display range of the
    header (cal_min to cal_max) or, without one, have to lie within 0 to 255. Frames are decompressed one at a time.

    The frame rate is that of the time step, if the header states one. In the layout of CAMUS it is `FrameRate` in the
    `Info_<view>.cfg` beside the file, and a `*_half_sequence` is played back after its end, from end-diastole to
    end-systole to end-diastole: half a beat becomes a beat. Beats follow each other until they last 1.3 seconds, as
    long as a clip of the default model, since what a clip lacks would be filled with blank frames.

    Args:
        source: See `VideoSource`.
        indices: Frame numbers to return, from 0, in this order, repeats allowed; `None` returns all frames.
        default_fps: Frames per second to assume, with a warning, if no rate is stated; `None` to raise instead.
        allow_truncated: Use, with a warning, the frames before the damage where the pixels end early.
        max_bytes: Most bytes of grayscale frames to decode.

    Raises:
        VideoReadError: If nibabel is not installed, or the file is no sequence of gray slices, is damaged or too
            large, or does not have a wanted frame.
        ValueError: If an index is negative.
    """
    wanted, resolved = frame_numbers(indices), resolve_source(source)
    name, found, failure = resolved.name, None, ""
    with named_errors(name):
        while True:
            with _open_nifti(resolved) as sequence:
                available = sequence.num_frames if found is None else found
                shown, promised = sequence.shown(available), len(sequence.shown(sequence.num_frames))
                numbers = frames_to_read(
                    name, wanted, len(shown), promised, allow_truncated=allow_truncated, failure=failure
                )
                order = [shown[number] for number in numbers] if numbers is not None else shown
                _require_room(sequence, len(order), math.prod(sequence.shape), max_bytes)
                collector, last, number = FrameCollector(name, order, max_bytes), max(order), -1
                for number, stored in enumerate(sequence.frames()):
                    if collector.is_wanted(number):
                        collector.add(number, square_pixels(_grey_levels(sequence, stored), sequence.aspect))
                    if number == last:
                        frames = collector.finish()
                        _require_full_scale(sequence, frames)
                        fps = usable_fps(sequence.fps, name, default_fps)
                        return EchoVideo(frames, fps, name, mm_per_pixel=sequence.mm_per_pixel)
                found, failure = number + 1, "the data end early"


def read_cfg(path: str | Path) -> dict[str, str]:
    """Read the values of an `Info_<view>.cfg` of CAMUS, a `Name: value` a line."""
    with open(path, "rb") as file:
        text = file.read(_MAX_CFG).decode("utf-8", "replace")
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _header_bytes(head: bytes) -> int | None:
    """Length of the header, which is the first number of a file in either order of bytes."""
    stated = int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")
    return next((length for length in _HEADERS if length in stated), None)


@contextmanager
def _open_nifti(resolved: ResolvedSource) -> Iterator[_Sequence]:
    name = resolved.name
    if Nifti1Header is None:
        raise VideoReadError.about(
            name, "is NIfTI, and nibabel is not installed", 'install it with pip install "echomen-hf[nifti]"'
        )
    with resolved.open() as file:
        is_compressed = file.read(2) == _GZIP
        file.seek(0)
        data = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_compressed else file
        try:
            head = data.read(max(_HEADERS))
            length = _header_bytes(head) or 0
            header = _HEADERS[length](head[:length])
            shape, kind = [int(size) for size in header.get_data_shape()], header.get_data_dtype()
            offset, (slope, intercept) = float(header["vox_offset"]), header.get_slope_inter()
        except Exception as error:
            raise VideoReadError.about(
                name, f"is not a readable NIfTI file ({type(error).__name__})", "copy or export it again"
            ) from error
        if not length <= offset <= _MAX_OFFSET:
            raise VideoReadError.about(
                name, f"has its pixels at byte {offset:g}, outside its header", "save it as one .nii or .nii.gz file"
            )
        if kind.names or kind.kind not in "uif":
            raise VideoReadError.about(name, "holds values that are no grey levels", "save it as 8-bit gray")
        num_frames = _num_frames(shape, name)
        require_frame_size(shape[1], shape[0], name)
        # Read again up to the pixels, which are not as far away as a bad header may say.
        data.seek(0)
        data.read(int(offset))
        low, high = float(header["cal_min"]), float(header["cal_max"])
        sides = np.abs(header["pixdim"][1:3].astype(float))
        half_beat = _HALF_BEAT.fullmatch(Path(name).name)
        sequence = _Sequence(
            name=name,
            data=data,
            num_frames=num_frames,
            size=(shape[0], shape[1]),
            kind=kind,
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            window=(low, high) if kind != np.uint8 and low < high else None,
            aspect=usable_aspect(float(sides[0] / sides[1])) if (sides > 0).all() else 1.0,
            mm_per_pixel=usable_pixel_size(float(sides.min()) * _MM.get(header.get_xyzt_units()[0], 0)),
            fps=_frame_rate(resolved, header, half_beat),
            is_half_beat=half_beat is not None,
        )
        require_frame_size(*sequence.shape, name)  # larger than stored where pixels are not square
        yield sequence


def _num_frames(shape: list[int], name: str) -> int:
    """Number of frames of an array (x, y), (x, y, t) or (x, y, 1, t)."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 4 and shape[2] == 1:
        shape = [*shape[:2], shape[3]]
    if not 2 <= len(shape) <= 3 or min(shape) < 1 or shape[2:] > [_MAX_FRAMES]:
        raise VideoReadError.about(
            name,
            f"holds an array of {' x '.join(map(str, shape))} values, which is no sequence of single frames",
            "save it as (x, y, time)",
        )
    return shape[2] if len(shape) == 3 else 1


def _frame_rate(resolved: ResolvedSource, header: Any, half_beat: re.Match[str] | None) -> float | None:
    """Frame rate of the .cfg of a CAMUS sequence, else of the time step; `None` if neither is stated."""
    if half_beat is not None and isinstance(resolved.target, str):
        cfg = Path(resolved.target).with_name(f"Info_{half_beat[1]}.cfg")
        if cfg.is_file():
            try:
                return float(read_cfg(cfg)["FrameRate"])
            except (KeyError, ValueError):
                return None
    seconds = _SECONDS.get(header.get_xyzt_units()[1])
    step = float(header["pixdim"][4]) * (seconds or 0) if len(header.get_data_shape()) == 4 else 0.0
    # A step of 1 is what a program writes that knows none.
    return 1 / step if 0 < step < 1 else None


def _require_room(sequence: _Sequence, num_frames: int, frame_pixels: int, max_bytes: int) -> None:
    if num_frames * frame_pixels > max_bytes:
        raise VideoReadError.about(
            sequence.name,
            f"holds more than {max_bytes} bytes of frames",
            "cut the clip to a few heart beats, ask for single frames with `indices`, or raise `max_bytes`",
        )


def _grey_levels(sequence: _Sequence, stored: bytes) -> NDArray[np.uint8]:
    """Grey levels of a stored frame, uint8, (y, x)."""
    values = np.frombuffer(stored, sequence.kind).reshape(sequence.size[::-1])  # (y, x), since x varies fastest
    is_scaled = (sequence.slope, sequence.intercept) != (1.0, 0.0)
    if sequence.kind == np.uint8 and not is_scaled:
        return values.copy()  # torch warns of memory that cannot be written to
    levels = values.astype(np.float64) * sequence.slope + sequence.intercept
    if sequence.window is not None:
        low, high = sequence.window
        levels = np.clip((levels - low) * (255 / (high - low)), 0, 255)
    if not (levels.min() >= 0 and levels.max() <= 255):  # NaN neither
        raise VideoReadError.about(
            sequence.name,
            f"holds values from {levels.min():g} to {levels.max():g} and states no display range (cal_min, cal_max)",
            "save it with grey levels from 0 to 255",
        )
    return np.rint(levels).astype(np.uint8)


def _require_full_scale(sequence: _Sequence, frames: NDArray[np.uint8]) -> None:
    """Refuse numbers from 0 to 1, which would all be black."""
    if sequence.kind.kind == "f" and sequence.window is None and frames.max() == 1:
        raise VideoReadError.about(
            sequence.name, "holds values from 0 to 1 and states no display range", "save it with grey levels to 255"
        )
