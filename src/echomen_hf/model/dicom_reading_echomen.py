"""Reading of DICOM cine loops: pixels, frame rate and the ultrasound region; never a patient field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import ColourMeter, largest_share
from .dicom_header_echomen import number, numbers_of, open_dicom
from .dicom_levels_echomen import COLOURS, DicomLevels
from .dicom_pixels_echomen import DicomPixels
from .dicom_region_echomen import Crop, find_crop, mm_per_pixel
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
from .gray_conversion_echomen import square_pixels
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
        crop = find_crop(dataset, shape[1:], name, crop_region, margin, square)
        kept = crop.box.with_square_pixels(crop.aspect)
        fps, _ = _frame_rate(dataset, shape[0], name)
        pixels = DicomPixels(file, dataset, shape, name)
        if pixels.syntax in uid.MPEGTransferSyntaxes:
            num_frames, size, _ = probe_container(_stream(pixels), shape[0], as_stored=True)
            _check_stream_size(size, shape[1:], name)
        else:
            pixels.require_readable()
            num_frames = pixels.found
            frames_to_read(name, None, num_frames, shape[0])
        return VideoInfo(num_frames, kept.height, kept.width, usable_fps(fps, name, default_fps))


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
    image, the outer `margin` goes. A region may be wrong: `whole` has all of the picture, in which a video processor
    with `do_find_sector` looks for the ultrasound fan itself.

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
        max_bytes: Most bytes of whole grayscale frames to decode, and of what a Deflated file inflates to, together.

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
        crop = find_crop(dataset, shape[1:], name, crop_region, margin, square)
        fps, shown = _frame_rate(dataset, shape[0], name)
        pixels = DicomPixels(file, dataset, shape, name)
        if shown is not None:
            numbers = frames_to_read(name, numbers or list(range(len(shown))), len(shown))
            numbers = shown[numbers].tolist()
        if pixels.syntax in uid.MPEGTransferSyntaxes:

            def checked(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
                _check_stream_size(frame.shape, shape[1:], name)
                return square_pixels(frame, crop.aspect)

            whole, _, cells = decode_container(
                _stream(pixels),
                numbers,
                allow_truncated=allow_truncated,
                max_bytes=max_bytes,
                measure_colour=True,
                promised=shape[0],
                prepare=checked,
            )
        else:
            whole, cells = _decode(pixels, crop, numbers, allow_truncated, max_bytes)
        assert cells is not None
        frames = whole[:, *crop.box.with_square_pixels(crop.aspect).slices]
        return EchoVideo(
            frames,
            usable_fps(fps, name, default_fps),
            name,
            max(largest_share(cells), largest_share(cells, crop.box.covered(cells.shape[1:], shape[1:]))),
            mm_per_pixel=mm_per_pixel(dataset, crop.header, crop.aspect),
            whole=None if frames.shape == whole.shape else whole,
            region=None if crop.region is None else crop.region.with_square_pixels(crop.aspect).corners,
            coloured_cells=cells,
        )


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
    rows, columns = number(dataset, "Rows"), number(dataset, "Columns")
    if not rows or not columns or "PhotometricInterpretation" not in dataset:
        raise VideoReadError.about(
            name, "is not a DICOM image (Rows, Columns or PhotometricInterpretation is missing)", "pass a cine loop"
        )
    require_frame_size(int(rows), int(columns), name)
    return int(number(dataset, "NumberOfFrames") or 1), int(rows), int(columns)


def _frame_rate(dataset: Dataset, num_frames: int, name: str) -> tuple[float | None, NDArray[np.int64] | None]:
    """Frame rate as the file states it, and the frame shown at every even step where it varies."""
    milliseconds = number(dataset, "FrameTime")
    by_time = (1000 / milliseconds if milliseconds else None, None)
    by_vector: tuple[float | None, NDArray[np.int64] | None] = (None, None)
    vector = numbers_of(dataset, "FrameTimeVector")
    pointed = numbers_of(dataset, "FrameIncrementPointer")
    vector_counts = _TIME_VECTOR in pointed.astype(np.int64).tolist() or not is_usable_fps(by_time[0])
    if len(vector) > 1 and vector_counts and (vector[1:] >= 0).all():
        fps, shown = even_rate(np.cumsum(vector) / 1000, None, name)
        by_vector = fps, shown if len(vector) == num_frames else None
    stated = [(number(dataset, keyword), None) for keyword in ("CineRate", "RecommendedDisplayFrameRate")]
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
    pixels: DicomPixels, crop: Crop, indices: list[int] | None, allow_truncated: bool, max_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Whole frames, and their coloured cells."""
    pixels.require_readable()
    levels, found, failure = DicomLevels(pixels), pixels.found, ""
    while True:
        numbers = frames_to_read(
            pixels.name, indices, found, pixels.num_frames, allow_truncated=allow_truncated, failure=failure
        )
        collector, colour = FrameCollector(pixels.name, numbers, max_bytes, found), ColourMeter()
        try:
            for index in range(found) if numbers is None else sorted(set(numbers)):
                wants_colour = colour.wants_frame()
                luma, chroma = levels.of(index, wants_colour)
                collector.add(index, square_pixels(luma, crop.aspect))
                if chroma is not None and wants_colour:
                    colour.add(*chroma)
        except VideoReadError:
            raise
        except Exception as error:
            # A decoder may raise anything; what was decoded before can be used on request.
            found, failure = index, " ".join(f"{type(error).__name__} {error}".split())
            continue
        return collector.finish(), colour.cells
