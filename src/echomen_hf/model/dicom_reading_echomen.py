"""Reading of DICOM cine loops: pixels, frame rate and the ultrasound region; never a patient field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import ColourMeter
from .dicom_header_echomen import open_dicom
from .dicom_pixels_echomen import COLOURS, DicomPixels
from .echo_video_echomen import (
    DEFAULT_FPS,
    EchoVideo,
    VideoInfo,
    even_rate,
    is_usable_fps,
    require_frame_size,
    usable_fps,
)
from .frame_collector_echomen import DEFAULT_MAX_BYTES, FrameCollector, frame_numbers, frames_to_read
from .gray_conversion_echomen import square_pixels, usable_aspect, usable_pixel_size
from .pyav_reading_echomen import decode_container, probe_container
from .video_source_echomen import ResolvedSource, VideoReadError, VideoSource, named_errors, resolve_source


try:
    from pydicom import uid
    from pydicom.dataset import Dataset
except ImportError:
    uid = None

__all__ = ["is_dicom", "probe_dicom", "read_dicom"]

_IMAGE_TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio", "PixelSpacing"),
    *("RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("ModalityLUTSequence", "VOILUTSequence"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in COLOURS),
]
_TIMING_TAGS = ["FrameTime", "FrameTimeVector", "FrameIncrementPointer", "CineRate", "RecommendedDisplayFrameRate"]
_REGION_TAGS = ["SequenceOfUltrasoundRegions"]
_READ_TAGS = [*_IMAGE_TAGS, *_TIMING_TAGS, *_REGION_TAGS]
_TIME_VECTOR = 0x00181065  # what FrameIncrementPointer calls FrameTimeVector
_RATES_AGREE = 0.1
_SIDES_AGREE = 0.05

_TWO_DIMENSIONAL, _TISSUE = 1, 1  # RegionSpatialFormat and RegionDataType, DICOM PS3.3 C.8.5.5
_CENTIMETRES = 3  # of PhysicalUnitsXDirection and PhysicalUnitsYDirection
_INSIDE_SHARE = 0.5  # of the region; with less inside the image, the coordinates belong to another size of it
_SMALLEST_REGION = 0.05  # of the image area


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

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def shrunk(self, margin: float) -> _Box:
        rows, columns = round(margin * self.height), round(margin * self.width)
        return _Box(self.top + rows, self.bottom - rows, self.left + columns, self.right - columns)

    def central_square(self, aspect: float) -> _Box:
        height, width = min(self.height, round(self.width * aspect)), min(self.width, round(self.height / aspect))
        top, left = self.top + (self.height - height) // 2, self.left + (self.width - width) // 2
        return _Box(top, top + height, left, left + width)


def is_dicom(source: VideoSource | ResolvedSource) -> bool:
    """Whether a file has the DICOM prefix, or is named .dcm or .dicom and has an image header without it."""
    resolved = resolve_source(source)
    with named_errors(resolved.name), resolved.open() as file:
        if file.read(132)[128:] == b"DICM":
            return True
    if resolved.suffix not in (".dcm", ".dicom"):
        return False
    try:
        with open_dicom(resolved, ["Rows"]) as (_, dataset, _):
            return "Rows" in dataset
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
    """Number of frames, size after the crop, and frame rate of a cine loop; see `read_dicom`."""
    _check_margin(margin)
    resolved = resolve_source(source)
    with named_errors(resolved.name), open_dicom(resolved, _READ_TAGS) as (file, dataset, _):
        shape, name = _image_shape(dataset, resolved.name), resolved.name
        box, aspect = _crop_box(dataset, shape[1:], name, crop_region, margin, square)
        height, width = square_pixels(np.broadcast_to(np.uint8(0), (box.height, box.width)), aspect).shape
        fps, _ = _frame_rate(dataset, shape[0], name)
        pixels = DicomPixels(file, dataset, shape, name)
        if pixels.syntax in uid.MPEGTransferSyntaxes:
            num_frames, size, _ = probe_container(_stream(pixels), shape[0], as_stored=True)
            _check_stream_size(size, shape[1:], name)
        else:
            pixels.require_readable()
            num_frames = pixels.found
            frames_to_read(name, None, num_frames, shape[0])
        return VideoInfo(num_frames, height, width, usable_fps(fps, name, default_fps))


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

    Colour becomes luma (ITU-R BT.601). 8-bit values are taken as stored; more bits are scaled to 0-255 by the VOI LUT
    or window of the file. Without one, the range of all pixels of the loop is used, with a warning, also where only
    some frames are asked for. Pixels that are not square (PixelAspectRatio, PixelSpacing, else PhysicalDeltaX and
    PhysicalDeltaY of the region in centimetres) are stretched. MPEG and H.264 streams inside DICOM are decoded by
    FFmpeg. The frame rate is that of the time between frames (of FrameTime and FrameTimeVector the one that
    FrameIncrementPointer names), else CineRate, else RecommendedDisplayFrameRate. The size of a pixel is that of the
    region, else PixelSpacing. Of a Deflated file at most 256 MB are inflated.

    Args:
        source: See `VideoSource`.
        indices: Frame numbers to return, from 0, in this order, repeats allowed; `None` returns all frames.
        default_fps: Frames per second to assume, with a warning, if the file states none or an absurd one; `None` to
            raise instead.
        crop_region: Crop to the ultrasound region that the file names.
        margin: Share of the height and width to remove on each side of an image without a usable region; 0 keeps all.
        square: Crop the longer side around the centre, so that height equals width.
        allow_truncated: Use, with a warning, the frames before the damage where the pixel data end early.
        max_bytes: Most bytes of grayscale frames to decode, and of what a Deflated file inflates to, together.

    Returns:
        The clip. A still image comes back as a clip of one frame: see `require_moving`.

    Raises:
        VideoReadError: If the file is not a DICOM image, has no pixel data, uses a compression that cannot be decoded
            (the message says what to install), is damaged, or does not have a wanted frame.
        ValueError: If an index is negative.
    """
    _check_margin(margin)
    numbers, resolved = frame_numbers(indices), resolve_source(source)
    name = resolved.name
    with named_errors(name), open_dicom(resolved, _READ_TAGS, max_bytes) as (file, dataset, num_inflated):
        max_bytes -= num_inflated
        shape = _image_shape(dataset, name)
        box, aspect = _crop_box(dataset, shape[1:], name, crop_region, margin, square)
        fps, shown = _frame_rate(dataset, shape[0], name)
        pixels = DicomPixels(file, dataset, shape, name)
        if shown is not None:
            numbers = frames_to_read(name, numbers or list(range(len(shown))), len(shown))
            numbers = shown[numbers].tolist()
        if pixels.syntax in uid.MPEGTransferSyntaxes:

            def cropped(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
                _check_stream_size(frame.shape, shape[1:], name)
                return square_pixels(frame[box.slices], aspect)

            frames, _, share = decode_container(
                _stream(pixels),
                numbers,
                allow_truncated=allow_truncated,
                max_bytes=max_bytes,
                measure_colour=True,
                promised=shape[0],
                prepare=cropped,
            )
        else:
            frames, share = _decode(pixels, box, aspect, numbers, allow_truncated, max_bytes)
        _, region = _tissue_region(dataset, *shape[1:], name, warn=False)
        mm_per_pixel = _mm_per_pixel(dataset, region, aspect)
        return EchoVideo(frames, usable_fps(fps, name, default_fps), name, share, mm_per_pixel=mm_per_pixel)


def _check_stream_size(size: tuple[int, ...], stated: tuple[int, int], name: str) -> None:
    if size != stated:
        raise VideoReadError.about(
            name, f"holds a stream of {size} pixels where its header says {stated}", "export it again"
        )


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 0.5:
        raise ValueError(f"margin must lie in [0, 0.5), got {margin}.")


def _image_shape(dataset: Dataset, name: str) -> tuple[int, int, int]:
    """Number of frames, rows and columns that the header states."""
    rows, columns = _number(dataset, "Rows"), _number(dataset, "Columns")
    if not rows or not columns or "PhotometricInterpretation" not in dataset:
        raise VideoReadError.about(
            name, "is not a DICOM image (Rows, Columns or PhotometricInterpretation is missing)", "pass a cine loop"
        )
    require_frame_size(int(rows), int(columns), name)
    return int(_number(dataset, "NumberOfFrames") or 1), int(rows), int(columns)


def _number(dataset: Dataset, keyword: str) -> float | None:
    """Value of a numeric element; `None` if it is absent, empty or not a number."""
    try:
        return float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None


def _numbers(dataset: Dataset, keyword: str) -> NDArray[np.float64]:
    """Values of a numeric element, none if it is absent or not of numbers."""
    try:
        return np.atleast_1d(np.asarray(dataset[keyword].value, np.float64))
    except (KeyError, TypeError, ValueError):
        return np.empty(0)


def _pixel_aspect(dataset: Dataset, region: Dataset | None) -> float:
    """Width of a pixel over its height; the file states height first."""
    for keyword in ("PixelAspectRatio", "PixelSpacing"):
        sides = _numbers(dataset, keyword)
        if len(sides) == 2 and (sides > 0).all():
            return usable_aspect(float(sides[1] / sides[0]))
    pixel = _region_pixel(region)
    return usable_aspect(pixel[0] / pixel[1]) if pixel else 1.0


def _region_pixel(region: Dataset | None) -> tuple[float, float] | None:
    """Width and height in mm of a pixel of a region."""
    if region is None:
        return None
    units = [_number(region, f"PhysicalUnits{axis}Direction") for axis in "XY"]
    width, height = (10 * abs(_number(region, f"PhysicalDelta{axis}") or 0) for axis in "XY")
    return (width, height) if units == [_CENTIMETRES] * 2 and width and height else None


def _mm_per_pixel(dataset: Dataset, region: Dataset | None, aspect: float) -> float | None:
    """Side of a pixel in mm once it is square, which is its shorter side now, if the file states that."""
    sides = _region_pixel(region) or _numbers(dataset, "PixelSpacing")[::-1].tolist()
    if len(sides) != 2 or not min(sides) > 0 or abs(sides[0] / sides[1] / aspect - 1) > _SIDES_AGREE:
        return None
    return usable_pixel_size(min(sides))


def _frame_rate(dataset: Dataset, num_frames: int, name: str) -> tuple[float | None, NDArray[np.int64] | None]:
    """Frame rate as the file states it, and the frame shown at every even step where it varies."""
    milliseconds = _number(dataset, "FrameTime")
    by_time = (1000 / milliseconds if milliseconds else None, None)
    by_vector: tuple[float | None, NDArray[np.int64] | None] = (None, None)
    vector = _numbers(dataset, "FrameTimeVector")
    pointed = _numbers(dataset, "FrameIncrementPointer")
    vector_counts = _TIME_VECTOR in pointed.astype(np.int64).tolist() or not is_usable_fps(by_time[0])
    if len(vector) > 1 and vector_counts and (vector[1:] >= 0).all():
        fps, shown = even_rate(np.cumsum(vector) / 1000, None, name)
        by_vector = fps, shown if len(vector) == num_frames else None
    stated = [(_number(dataset, keyword), None) for keyword in ("CineRate", "RecommendedDisplayFrameRate")]
    # A time between frames in seconds instead of milliseconds is common, and hides a rate that is stated rightly.
    candidates = [by_vector, by_time, *stated]
    usable = [candidate for candidate in candidates if is_usable_fps(candidate[0])]
    if not usable:
        return next((candidate for candidate in candidates if candidate[0]), (None, None))
    fps, cine = usable[0][0], stated[0][0]
    if fps and cine and is_usable_fps(cine) and abs(cine / fps - 1) > _RATES_AGREE:
        warnings.warn(
            f"{name}: the time between its frames gives {fps:.1f} frames per second, its CineRate {cine:.1f}; taking "
            "the former.",
            stacklevel=2,
        )
    return usable[0]


def _stream(pixels: DicomPixels) -> ResolvedSource:
    """Video stream inside a DICOM file."""
    return ResolvedSource(f"{pixels.name} (its video stream)", pixels.open_stream())


def _decode(
    pixels: DicomPixels, box: _Box, aspect: float, indices: list[int] | None, allow_truncated: bool, max_bytes: int
) -> tuple[NDArray[np.uint8], float]:
    """Frames, and the share of them that is coloured."""
    pixels.require_readable()
    found, failure = pixels.found, ""
    while True:
        numbers = frames_to_read(
            pixels.name, indices, found, pixels.num_frames, allow_truncated=allow_truncated, failure=failure
        )
        collector, colour = FrameCollector(pixels.name, numbers, max_bytes, found), ColourMeter()
        try:
            for index in range(found) if numbers is None else sorted(set(numbers)):
                wants_colour = colour.wants_frame()
                luma, chroma = pixels.levels(index, box.slices, wants_colour)
                collector.add(index, square_pixels(luma, aspect))
                if chroma is not None and wants_colour:
                    colour.add(*chroma)
        except VideoReadError:
            raise
        except Exception as error:
            # A decoder may raise anything; what was decoded before can be used on request.
            found, failure = index, " ".join(f"{type(error).__name__} {error}".split())
            continue
        return collector.finish(), colour.share


def _crop_box(
    dataset: Dataset, size: tuple[int, int], name: str, crop_region: bool, margin: float, square: bool
) -> tuple[_Box, float]:
    """What to keep of a frame, and the width of a pixel over its height."""
    rows, columns = size
    box, region = _tissue_region(dataset, rows, columns, name, warn=crop_region)
    aspect = _pixel_aspect(dataset, region)
    if box is None or not crop_region:
        box = _Box(0, rows, 0, columns).shrunk(margin)
    return box.central_square(aspect) if square else box, aspect


def _tissue_region(
    dataset: Dataset, rows: int, columns: int, name: str, warn: bool
) -> tuple[_Box | None, Dataset | None]:
    """Largest usable two-dimensional tissue region: its place, clipped to the image, and what is said of it."""
    tissue = [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if _number(region, "RegionSpatialFormat") == _TWO_DIMENSIONAL and _number(region, "RegionDataType") == _TISSUE
    ]
    usable = []
    for region in tissue:
        corners = [_number(region, f"RegionLocation{corner}") for corner in ("MinY0", "MaxY1", "MinX0", "MaxX1")]
        box = _clip_region(corners, rows, columns)
        if box is not None:
            usable.append((box, region))
    if warn and tissue and not usable:
        warnings.warn(f"{name}: its ultrasound region does not fit its image; ignoring the region.", stacklevel=2)
    return max(usable, key=lambda found: found[0].height * found[0].width, default=(None, None))


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
