"""Reading of DICOM cine loops: pixels, frame rate and the ultrasound region; never a patient field."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import ColourMeter, chroma_of_rgb, luma_of_rgb
from .echo_video_echomen import DEFAULT_FPS, FPS_RANGE, EchoVideo, VideoInfo, usable_fps
from .frame_collector_echomen import DEFAULT_MAX_BYTES, FrameCollector
from .pyav_reading_echomen import decode_container
from .video_source_echomen import ResolvedSource, VideoReadError, VideoSource, resolve_source


try:
    import pydicom
    from pydicom import uid
    from pydicom.dataset import Dataset
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.pixels import apply_color_lut, apply_rescale, apply_windowing, get_decoder
except ImportError:
    pydicom = None

__all__ = ["is_dicom", "probe_dicom", "read_dicom"]

_COLOURS = ("Red", "Green", "Blue")
_IMAGE_TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_TIMING_TAGS = ["FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate"]
_REGION_TAGS = ["SequenceOfUltrasoundRegions"]
_PIXEL_TAGS = ["PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"]

_TWO_DIMENSIONAL, _TISSUE = 1, 1  # RegionSpatialFormat and RegionDataType, DICOM PS3.3 C.8.5.5
_INSIDE_SHARE = 0.5  # of the region; with less inside the image, the coordinates belong to another size of it
_SMALLEST_REGION = 0.05  # of the image area
_DECODING_ERRORS = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError),
    *(ValueError, struct.error),
)
_INSTALL_HINT = 'install the decoders with pip install "pydicom>=3" "pylibjpeg[libjpeg,openjpeg]"'


@dataclass(frozen=True)
class _Box:
    """Pixel rectangle, half-open."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def crop(self, frame: NDArray[Any]) -> NDArray[Any]:
        return frame[self.top : self.bottom, self.left : self.right]

    def shrunk(self, margin: float) -> _Box:
        rows, columns = round(margin * self.height), round(margin * self.width)
        return _Box(self.top + rows, self.bottom - rows, self.left + columns, self.right - columns)

    def central_square(self) -> _Box:
        side = min(self.height, self.width)
        top, left = self.top + (self.height - side) // 2, self.left + (self.width - side) // 2
        return _Box(top, top + side, left, left + side)


def is_dicom(source: VideoSource | ResolvedSource) -> bool:
    """Whether a file has the DICOM prefix, or is named .dcm or .dicom and has an image header without it."""
    resolved = resolve_source(source)
    with resolved.open() as file:
        if file.read(132)[128:] == b"DICM":
            return True
    if resolved.suffix not in (".dcm", ".dicom"):
        return False
    try:
        return "Rows" in _parse(resolved, ["Rows"])
    except VideoReadError:
        return False


def probe_dicom(
    source: VideoSource | ResolvedSource,
    default_fps: float | None = DEFAULT_FPS,
    *,
    crop_region: bool = True,
    margin: float = 0.1,
    square: bool = True,
) -> VideoInfo:
    """Read the header of a cine loop, without decoding; the size is that after the crop. See `read_dicom`."""
    resolved = resolve_source(source)
    dataset = _parse(resolved, [*_IMAGE_TAGS, *_TIMING_TAGS, *_REGION_TAGS])
    num_frames, rows, columns = _image_shape(dataset, resolved.name)
    box = _crop_box(dataset, rows, columns, resolved.name, crop_region, margin, square)
    return VideoInfo(num_frames, box.height, box.width, _frame_rate(dataset, resolved.name, default_fps))


def read_dicom(
    source: VideoSource | ResolvedSource,
    indices: Sequence[int] | None = None,
    default_fps: float | None = DEFAULT_FPS,
    *,
    crop_region: bool = True,
    margin: float = 0.1,
    square: bool = True,
    allow_truncated: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> EchoVideo:
    """Decode a DICOM cine loop to grayscale frames of the scanned sector.

    Only image, timing and region elements are parsed; patient elements are stepped over, so that none can reach an
    output, a log or an error message. Text burned into the pixels is what the crop is for: like the preparation of
    EchoNet-Dynamic, it keeps a square around the sector. Where the file names a two-dimensional tissue region, that is
    cropped (its largest, if several), clipped to the image; where it names none, or one that lies mostly outside the
    image, the outer `margin` goes.

    Colour becomes luma (ITU-R BT.601). 8-bit values are taken as stored; more bits are scaled to 0-255 by the window
    of the file or, without one, by the range of its stored bits. MPEG and H.264 streams inside DICOM are decoded by
    FFmpeg. The frame rate is that of the time between frames (FrameTime, FrameTimeVector), else CineRate, else
    RecommendedDisplayFrameRate.

    Args:
        source: See `VideoSource`.
        indices: Frame numbers to return, from 0, in this order, repeats allowed; `None` returns all frames.
        default_fps: Frames per second to assume, with a warning, if the file states none or an absurd one; `None` to
            raise instead.
        crop_region: Crop to the ultrasound region that the file names.
        margin: Share of the height and width to remove on each side of an image without a usable region; 0 keeps all.
        square: Crop the longer side around the centre, so that height equals width.
        allow_truncated: Use, with a warning, the frames before the damage where the pixel data end early.
        max_bytes: Most bytes of grayscale frames to decode.

    Returns:
        The clip. A still image comes back as a clip of one frame: see `require_moving`.

    Raises:
        VideoReadError: If the file is not a DICOM image, has no pixel data, uses a compression that cannot be decoded
            (the message says what to install), is damaged, or does not have a wanted frame.
        ValueError: If an index is negative.
    """
    resolved = resolve_source(source)
    dataset = _parse(resolved, [*_IMAGE_TAGS, *_TIMING_TAGS, *_REGION_TAGS, *_PIXEL_TAGS], pixels=True)
    if "PixelData" not in dataset:
        raise VideoReadError.about(
            resolved.name, "is a DICOM file without pixel data", "pass the cine loop, not a report or measurement file"
        )
    num_frames, rows, columns = _image_shape(dataset, resolved.name)
    box = _crop_box(dataset, rows, columns, resolved.name, crop_region, margin, square)
    fps = _frame_rate(dataset, resolved.name, default_fps)
    if dataset.file_meta.TransferSyntaxUID in uid.MPEGTransferSyntaxes:
        encapsulated = io.BytesIO(dataset.PixelData)
        parse_basic_offsets(encapsulated)  # the table before the first fragment is no part of the stream
        stream = ResolvedSource(resolved.name, io.BytesIO(b"".join(generate_fragments(encapsulated))))
        video = decode_container(
            stream, indices, fps, allow_truncated=allow_truncated, max_bytes=max_bytes, measure_colour=True
        )
        if video.frames.shape[1:] != (rows, columns):
            raise VideoReadError.about(
                resolved.name,
                f"holds a stream of {video.frames.shape[1:]} pixels where its header says {(rows, columns)}",
                "export it again",
            )
        frames = np.ascontiguousarray(video.frames[:, box.top : box.bottom, box.left : box.right])
        share = video.coloured_share
    else:
        collector = FrameCollector(
            resolved.name, indices, num_frames, allow_truncated=allow_truncated, max_bytes=max_bytes
        )
        frames, share = _decode(dataset, box, collector)
    return EchoVideo(frames, fps, resolved.name, share)


def _parse(resolved: ResolvedSource, keywords: list[str], *, pixels: bool = False) -> Dataset:
    """Parse the named elements only; everything else in the file is stepped over."""
    if pydicom is None:
        raise VideoReadError.about(resolved.name, "is DICOM, and pydicom is not installed", _INSTALL_HINT)
    with resolved.open() as file:
        has_prefix = file.read(132)[128:] == b"DICM"
        file.seek(0)
        try:
            dataset = pydicom.dcmread(
                file, force=not has_prefix, specific_tags=list(keywords), stop_before_pixels=not pixels
            )
        except _DECODING_ERRORS as error:
            raise VideoReadError.about(
                resolved.name, f"is not a readable DICOM file ({type(error).__name__})", "copy or export it again"
            ) from error
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit_syntax = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit_syntax
    return dataset


def _image_shape(dataset: Dataset, name: str) -> tuple[int, int, int]:
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    if not rows or not columns or "PhotometricInterpretation" not in dataset:
        raise VideoReadError.about(
            name, "is not a DICOM image (Rows, Columns or PhotometricInterpretation is missing)", "pass a cine loop"
        )
    return int(_number(dataset, "NumberOfFrames") or 1), int(rows), int(columns)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """Value of a numeric element; `None` if it is absent, empty or not a number."""
    try:
        return float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None


def _frame_rate(dataset: Dataset, name: str, default_fps: float | None) -> float:
    frame_time = _number(dataset, "FrameTime")  # milliseconds
    if not frame_time:
        try:
            increments = np.atleast_1d(np.asarray(dataset["FrameTimeVector"].value, float))[1:]
            frame_time = float(increments.mean()) if increments.size else None
        except (KeyError, TypeError, ValueError):
            frame_time = None
    stated = [_number(dataset, "CineRate"), _number(dataset, "RecommendedDisplayFrameRate")]
    candidates = [1000.0 / frame_time if frame_time else None, *stated]
    # A time between frames in seconds instead of milliseconds is common, and hides a rate that is stated rightly.
    usable = (fps for fps in candidates if fps and FPS_RANGE[0] <= fps <= FPS_RANGE[1])
    return usable_fps(next(usable, next((fps for fps in candidates if fps), None)), name, default_fps)


def _crop_box(
    dataset: Dataset, rows: int, columns: int, name: str, crop_region: bool, margin: float, square: bool
) -> _Box:
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin must lie in [0, 0.5), got {margin}.")
    box = _tissue_region(dataset, rows, columns, name) if crop_region else None
    if box is None:
        box = _Box(0, rows, 0, columns).shrunk(margin)
    return box.central_square() if square else box


def _tissue_region(dataset: Dataset, rows: int, columns: int, name: str) -> _Box | None:
    """Largest usable two-dimensional tissue region, clipped to the image."""
    tissue = [
        [_number(region, f"RegionLocation{corner}") for corner in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if _number(region, "RegionSpatialFormat") == _TWO_DIMENSIONAL and _number(region, "RegionDataType") == _TISSUE
    ]
    boxes = [box for corners in tissue if (box := _clip_region(corners, rows, columns)) is not None]
    if tissue and not boxes:
        warnings.warn(f"{name}: its ultrasound region does not fit its image; ignoring the region.", stacklevel=2)
    return max(boxes, key=lambda box: box.height * box.width, default=None)


def _clip_region(corners: list[float | None], rows: int, columns: int) -> _Box | None:
    if any(corner is None for corner in corners):
        return None
    top, bottom, left, right = (int(corner) for corner in corners if corner is not None)  # inclusive
    if top > bottom or left > right:
        return None
    box = _Box(max(top, 0), min(bottom + 1, rows), max(left, 0), min(right + 1, columns))
    inside = max(box.height, 0) * max(box.width, 0)
    mostly_inside = inside >= _INSIDE_SHARE * (bottom + 1 - top) * (right + 1 - left)
    return box if mostly_inside and inside >= _SMALLEST_REGION * rows * columns else None


def _decode(dataset: Dataset, box: _Box, collector: FrameCollector) -> tuple[NDArray[np.uint8], float]:
    """Frames, and the share of them that is coloured."""
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise VideoReadError.about(
            collector.name, f"uses a compression that cannot be decoded ({syntax.name})", "export it as JPEG or AVI"
        ) from error
    if not decoder.is_available:
        raise VideoReadError.about(collector.name, f"is compressed as {syntax.name}, without a decoder", _INSTALL_HINT)

    order = range(collector.expected) if collector.wanted is None else sorted(collector.wanted)
    num_decoded, luma, failure, colour = 0, None, "", ColourMeter()
    try:
        for index, (frame, pixel) in zip(order, decoder.iter_array(dataset, indices=order, raw=True)):
            luma = _luma(box.crop(frame), dataset, pixel, collector.name)
            collector.add(index, luma)
            num_decoded = index + 1
            has_colour = not pixel["photometric_interpretation"].startswith("MONOCHROME")
            if has_colour and colour.wants_frame():
                colour.add(*_chroma(box.crop(frame), dataset, pixel))
    except VideoReadError:
        raise
    except _DECODING_ERRORS as error:
        failure = " ".join(f"{type(error).__name__} {error}".split())
    return collector.finish(num_decoded, luma, failure), colour.share


def _luma(frame: NDArray[Any], dataset: Dataset, pixel: dict[str, Any], name: str) -> NDArray[np.uint8]:
    """Luma on the 0-255 scale; `frame` is (H, W) or (H, W, 3)."""
    kind = pixel["photometric_interpretation"]
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        gray = _monochrome(frame, dataset, pixel, name)
        return 255 - gray if kind == "MONOCHROME1" else gray
    if kind in ("YBR_FULL", "YBR_FULL_422"):
        return _to_eight_bits(frame[..., 0], 0, 2 ** pixel["bits_stored"] - 1)
    if kind == "RGB":
        return _to_eight_bits(luma_of_rgb(frame), 0, 2 ** pixel["bits_stored"] - 1)
    if kind == "PALETTE COLOR":
        colour = apply_color_lut(frame, dataset)
        return _to_eight_bits(luma_of_rgb(colour), 0, np.iinfo(colour.dtype).max)
    raise VideoReadError.about(name, f"stores its colour as {kind}, which is not supported", "export it as RGB or AVI")


def _chroma(
    frame: NDArray[Any], dataset: Dataset, pixel: dict[str, Any]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cb and Cr, neutral at 128; `frame` is (H, W) indices of a palette, or (H, W, 3)."""
    kind, white = pixel["photometric_interpretation"], 2 ** pixel["bits_stored"] - 1
    if kind == "PALETTE COLOR":
        frame = apply_color_lut(frame, dataset)
        white = np.iinfo(frame.dtype).max
    frame = _to_eight_bits(frame, 0, white)
    return chroma_of_rgb(frame) if kind in ("RGB", "PALETTE COLOR") else (frame[..., 1], frame[..., 2])


def _monochrome(frame: NDArray[Any], dataset: Dataset, pixel: dict[str, Any], name: str) -> NDArray[np.uint8]:
    bits, signed = pixel["bits_stored"], pixel["pixel_representation"] == 1
    low = -(2 ** (bits - 1)) if signed else 0
    if bits <= 8 or not dataset.get("WindowWidth") or dataset.get("WindowCenter") in (None, ""):
        return _to_eight_bits(frame, low, low + 2**bits - 1)
    windowed = apply_windowing(apply_rescale(frame, dataset), dataset)
    # What the window maps its own ends to depends on bits and rescaling: ask it.
    centre, width = (float(np.atleast_1d(dataset[keyword].value)[0]) for keyword in ("WindowCenter", "WindowWidth"))
    black, white = apply_windowing(np.array([centre - width, centre + width]), dataset)
    if black == white:
        raise VideoReadError.about(
            name, "maps every value to one grey level (RescaleSlope or window)", "export it again without rescaling"
        )
    return _to_eight_bits(windowed, black, white)


def _to_eight_bits(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    if values.dtype == np.uint8 and (black, white) == (0, 255):
        return np.ascontiguousarray(values)
    scaled = (values.astype(np.float64) - black) * (255.0 / (white - black))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
