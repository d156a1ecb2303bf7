"""Pixels of DICOM images: where the frames are in a file, and their luma."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .coded_images_echomen import (
    CODESTREAM_START,
    ITEM,
    JPEG_START,
    FileParts,
    Part,
    adobe_transform,
    coded_size,
    encapsulated_items,
    run_length_decoded_size,
)
from .colour_doppler_echomen import chroma_of_rgb, luma_of_rgb
from .gray_conversion_echomen import full_range
from .video_source_echomen import VideoReadError


try:
    from pydicom import uid
    from pydicom.dataset import Dataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels import apply_windowing, get_decoder
except ImportError:
    Dataset = None

__all__ = ["COLOURS", "INSTALL_HINT", "DicomPixels"]

COLOURS = ("Red", "Green", "Blue")
INSTALL_HINT = 'install the decoders with pip install "pydicom>=3" "pylibjpeg[libjpeg,openjpeg]"'

_PIXEL_DATA = (0x7FE0, 0x0010)
_CLEARLY = 4.0  # times as far from gray, taken for one colour space as for the other
_LEVELS = 256
_TABLE_BITS = 16  # stored values of more bits are converted one by one
_BLOCK_PIXELS = 2**15  # that are converted at a time, since some conversions need 50 times the memory of a frame
_COLOUR_KINDS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")
_DECODED_KINDS = ("YBR_ICT", "YBR_RCT")  # decoders of JPEG 2000 make RGB of them
_GRAY_KINDS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_MAX_COMPONENTS = 4  # of a coded image
_HEADER_BYTES = 2**20  # of a coded image, at most
_RUNS_HEADER_BYTES = 2**10  # of a frame in RLE
_UNCHECKED_RUNS = 2**18  # bytes of RLE that may become 64 times as many without being looked at


class Levels(NamedTuple):
    """Luma of a frame, uint8, shape (H, W), and its Cb and Cr, neutral at 128, if it can have colour."""

    luma: NDArray[np.uint8]
    chroma: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None


class DicomPixels:
    """Frames of a DICOM image.

    Args:
        file: The file, at its pixel data element.
        dataset: What stands before that.
        shape: Number of frames, rows and columns that the header states.
        name: File name for messages.
    """

    def __init__(self, file: BinaryIO, dataset: Dataset, shape: tuple[int, int, int], name: str) -> None:
        self._file, self._dataset, self.name = file, dataset, name
        self.num_frames, self.rows, self.columns = shape
        self.samples = int(dataset.get("SamplesPerPixel") or 1)
        self.kind = str(dataset.PhotometricInterpretation)
        self.allocated = int(dataset.get("BitsAllocated") or 8)
        self.stored = int(dataset.get("BitsStored") or self.allocated)
        self.signed = dataset.get("PixelRepresentation") == 1
        self.syntax = dataset.file_meta.TransferSyntaxUID
        self._representation, self._start, self._stated_length = self._find_pixel_data()
        self._length = min(self._stated_length, file.seek(0, 2) - self._start)
        self._coded: list[list[Part]] | None = None
        if self.syntax.is_encapsulated:
            file.seek(self._start)
            if file.read(4) != ITEM:
                raise self._error("states a compression, but its pixel data are not encapsulated", "export it again")
            self._fragments, self._offsets = encapsulated_items(file, self._start, file.seek(0, 2))
            self._coded = self._group_fragments()
        elif self.allocated not in (1, 8, 16, 32):
            raise self._error(f"stores {self.allocated} bits a pixel, which is not supported", "export it with 8 bits")
        self._tables: tuple[NDArray[np.uint8], ...] | None = None
        self._is_ybr: bool | None = None
        self._range: tuple[int, int] | None = None

    def _error(self, problem: str, remedy: str) -> VideoReadError:
        return VideoReadError.about(self.name, problem, remedy)

    def _find_pixel_data(self) -> tuple[bytes, int, int]:
        """Value representation, place and length of the pixel data."""
        implicit, little = self._dataset.original_encoding
        order = "<" if little else ">"
        head = self._file.read(12)
        place = self._file.tell() - len(head)
        if len(head) < 12 or struct.unpack_from(f"{order}2H", head) != _PIXEL_DATA:
            raise self._error(
                "is a DICOM file without pixel data, or was cut off before them",
                "pass the cine loop, not a report or measurement file, and copy it again if it is one",
            )
        if implicit or not head[4:6].isupper():  # implicit here in some files that else are explicit
            return b"OW", place + 8, struct.unpack_from(f"{order}I", head, 4)[0]
        return head[4:6], place + 12, struct.unpack_from(f"{order}I", head, 8)[0]

    def _group_fragments(self) -> list[list[Part]]:
        """Fragments of every encoded frame."""
        fragments = self._fragments
        if len(fragments) <= self.num_frames:
            return [[fragment] for fragment in fragments]
        if self.num_frames == 1:
            return [fragments]
        starts = [0, *np.cumsum([8 + size for _, size in fragments]).tolist()]
        numbers = {start: number for number, start in enumerate(starts[:-1])}
        firsts = [numbers[offset] for offset in self._offsets if offset in numbers]
        if len(firsts) != self.num_frames:
            beginnings = (JPEG_START, CODESTREAM_START)
            heads = [self._read([(place, min(size, 4))]) for place, size in fragments]
            firsts = [number for number, head in enumerate(heads) if head.startswith(beginnings)]
        ends = [*firsts[1:], len(fragments)]
        return [fragments[first:end] for first, end in zip(firsts, ends)][: self.num_frames]

    def _read(self, parts: list[Part]) -> bytes:
        data = []
        for place, size in parts:
            self._file.seek(place)
            data.append(self._file.read(size))
        return b"".join(data)

    def open_stream(self) -> BinaryIO:
        """Pixel data that are a video, as a file."""
        return io.BufferedReader(FileParts(self._file, self._fragments))

    @property
    def found(self) -> int:
        """Number of frames that are there."""
        if self._coded is not None:
            return len(self._coded)
        return min(8 * self._length // self._frame_bits, self.num_frames)

    @property
    def _is_subsampled(self) -> bool:
        """Whether pairs of pixels share their colour: files with that label may have colour for every pixel."""
        full = self.num_frames * self.rows * self.columns * 3
        return self.kind in ("YBR_FULL_422", "YBR_PARTIAL_422") and self._stated_length < full

    @property
    def _frame_bits(self) -> int:
        samples = 2 if self._is_subsampled else self.samples
        return self.rows * self.columns * samples * self.allocated

    def _check_size(self, coded: bytes) -> None:
        """Refuse an image of another size than the header states, before memory is taken for it."""
        stated, most = (self.rows, self.columns), self.rows * self.columns * self.samples * self.allocated // 8
        size: tuple[int, ...] | None = stated
        if self.syntax != uid.RLELossless:
            size, most = coded_size(coded), 2 * most + _HEADER_BYTES
            if size is not None and size[2] > _MAX_COMPONENTS:
                raise self._error(f"holds an image of {size[2]} colours", "export it again")
        else:
            most = 2 * most + _RUNS_HEADER_BYTES
            largest = self.rows * self.columns + 1  # with its padding
            if _UNCHECKED_RUNS < len(coded) <= most and run_length_decoded_size(coded, largest) > largest:
                size = None
        if size is None or size[:2] != stated or len(coded) > most:
            raise self._error(
                f"holds an image of {size[:2] if size else 'unknown'} pixels where its header says {stated}",
                "export it again",
            )

    def require_readable(self) -> None:
        """Refuse a compression or colours that cannot be decoded here, and images of another size than stated."""
        try:
            decoder = get_decoder(self.syntax)
        except NotImplementedError as error:
            raise self._error(
                f"uses a compression that cannot be decoded ({self.syntax.name})", "export it as JPEG or AVI"
            ) from error
        if not decoder.is_available:
            raise self._error(f"is compressed as {self.syntax.name}, without a decoder", INSTALL_HINT)
        known = {1: _GRAY_KINDS, 3: (*_COLOUR_KINDS, *(_DECODED_KINDS if self._coded else ()))}
        if self.kind not in known.get(self.samples, ()):
            raise self._unknown_colour(self.kind)
        if self.kind == "PALETTE COLOR" and self.stored > _TABLE_BITS:
            raise self._error(f"stores {self.stored} bits a pixel, which is not supported", "export it with 8 bits")
        for parts in self._coded or []:
            self._check_size(self._read(parts))

    def _unknown_colour(self, kind: str) -> VideoReadError:
        return self._error(
            f"stores {self.samples} values a pixel as {kind}, which is not supported", "export it as RGB or AVI"
        )

    def levels(self, index: int, with_chroma: bool) -> Levels:
        """Luma, and chroma if it is asked for, of one frame."""
        frame, kind = self._frame(index)
        if self.samples == 3:
            if kind not in _COLOUR_KINDS:
                raise self._unknown_colour(kind)
            if self._is_ybr is None:
                # The first frame decides, whichever are asked for.
                first = frame if index == 0 else self._frame(0)[0]
                some = first[:: max(1, self.rows * self.columns // _BLOCK_PIXELS)]
                self._is_ybr = _is_ybr(self._eight_bits(some), kind != "RGB")
        elif self.stored <= _TABLE_BITS and self._tables is None:
            self._tables = self._make_tables()
        step = max(1, _BLOCK_PIXELS // frame.shape[1])
        blocks = [self._levels_of(frame[top : top + step], kind, with_chroma) for top in range(0, len(frame), step)]
        if len(blocks) == 1:
            return blocks[0]
        chroma = [block.chroma for block in blocks if block.chroma is not None]
        blue, red = (np.concatenate(planes) for planes in zip(*chroma)) if chroma else (None, None)
        luma = np.concatenate([block.luma for block in blocks])
        return Levels(luma, None if blue is None or red is None else (blue, red))

    def _levels_of(self, pixels: NDArray[Any], kind: str, with_chroma: bool) -> Levels:
        if self.samples == 1:
            return (
                self._by_table(pixels, with_chroma) if self._tables is not None else Levels(self._gray(pixels), None)
            )
        pixels = self._eight_bits(pixels)
        if not self._is_ybr:
            return Levels(luma_of_rgb(pixels), chroma_of_rgb(pixels) if with_chroma else None)
        luma = np.ascontiguousarray(pixels[..., 0])
        return Levels(full_range(luma) if "PARTIAL" in kind else luma, (pixels[..., 1], pixels[..., 2]))

    def _frame(self, index: int) -> tuple[NDArray[Any], str]:
        """One frame as it is stored, shape (H, W) or (H, W, 3), and its photometric interpretation."""
        if self._coded is None:
            return self._native(index), self.kind
        coded, dataset = self._read(self._coded[index]), self._dataset
        self._check_size(coded)
        dataset.NumberOfFrames = 1
        dataset.add_new(_PIXEL_DATA, "OB", encapsulate([coded], has_bot=False))
        unusual = {"correct_unused_bits": False} if self._shift else {}
        frame, pixel = get_decoder(self.syntax).as_array(dataset, index=0, raw=True, **unusual)
        if self._shift and self.syntax == uid.RLELossless:
            frame = self._stored_bits(frame)
        kind = pixel["photometric_interpretation"]
        transform = adobe_transform(coded) if self.samples == 3 else None
        if transform is not None:
            kind = "YBR_FULL" if transform else "RGB"
        return frame, kind

    def _native(self, index: int) -> NDArray[Any]:
        little = self._dataset.original_encoding[1]
        if self.allocated == 1:
            start, count = index * self._frame_bits, self._frame_bits
            self._file.seek(self._start + start // 8)
            packed = np.frombuffer(self._file.read((start % 8 + count + 7) // 8), np.uint8)
            return np.unpackbits(packed, bitorder="little")[start % 8 :][:count].reshape(self.rows, self.columns)
        size = self._frame_bits // 8
        start = index * size
        # Bytes of big-endian words stand in pairs, whatever a word holds.
        swapped = not little and self.allocated == 8 and self._representation == b"OW"
        first, end = (start & ~1, start + size + 1 & ~1) if swapped else (start, start + size)
        self._file.seek(self._start + first)
        data = self._file.read(end - first)
        if swapped:
            data = np.frombuffer(data, "<u2").byteswap().tobytes()[start - first :][:size]
        kind = ("i" if self.signed else "u") + str(self.allocated // 8)
        pixels = np.frombuffer(data, ("<" if little else ">") + kind)
        pixels = self._stored_bits(pixels.astype(kind, copy=False))
        if self._is_subsampled:
            pairs = pixels.reshape(-1, 4)  # Y1 Y2 Cb Cr
            pixels = pairs[:, [0, 2, 3, 1, 2, 3]]
        elif self.samples > 1 and self._dataset.get("PlanarConfiguration") == 1:
            return np.moveaxis(pixels.reshape(self.samples, self.rows, self.columns), 0, -1)
        shape = (self.rows, self.columns, self.samples)
        return pixels.reshape(shape[: 2 if self.samples == 1 else 3])

    @property
    def _shift(self) -> int:
        """Bits below those that are stored."""
        high = self._dataset.get("HighBit")
        shift = 0 if high is None else int(high) + 1 - self.stored
        return shift if 0 <= shift <= self.allocated - self.stored else 0

    def _stored_bits(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Values without the bits around them, which may hold anything."""
        if self.stored >= self.allocated:
            return pixels
        return pixels << (self.allocated - self.stored - self._shift) >> (self.allocated - self.stored)

    def _eight_bits(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        if frame.dtype == np.uint8 and self.stored == 8:
            return frame
        return scaled(frame, 0, 2**self.stored - 1)

    @property
    def _lowest(self) -> int:
        return -(2 ** (self.stored - 1)) if self.signed else 0

    def _by_table(self, frame: NDArray[Any], with_chroma: bool) -> Levels:
        tables = self._tables
        if not tables:
            return Levels(np.ascontiguousarray(frame), None)
        places = np.clip(frame.astype(np.int64) - self._lowest, 0, 2**self.stored - 1)
        luma, *chroma = (table[places] for table in (tables if with_chroma else tables[:1]))
        return Levels(luma, (chroma[0], chroma[1]) if chroma else None)

    def _make_tables(self) -> tuple[NDArray[np.uint8], ...]:
        """Luma, and for a palette Cb and Cr, of every stored value; nothing if it is the value itself."""
        low, count = self._lowest, 2**self.stored
        values = np.arange(low, low + count)
        if self.kind == "PALETTE COLOR":
            palette = self._palette(values)
            blue, red = chroma_of_rgb(palette[None])
            return luma_of_rgb(palette), blue[0], red[0]
        if self.stored == 8 and not self.signed and self.kind == "MONOCHROME2":
            return ()
        return (self._gray(values),)

    def _gray(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey levels of stored values."""
        low, high = self._lowest, self._lowest + 2**self.stored - 1
        gray = self._windowed(values) if self.stored > 8 else scaled(values, low, high)
        return 255 - gray if self.kind == "MONOCHROME1" else gray

    def _range_of_loop(self) -> tuple[int, int]:
        """Lowest and highest stored value of all frames before the first that is damaged."""
        if self._range is None:
            low, high = [], []
            for index in range(self.found):
                try:
                    frame, _ = self._frame(index)
                except Exception:
                    break
                low.append(int(frame.min()))
                high.append(int(frame.max()))
            self._range = min(low, default=0), max(high, default=0)
            warnings.warn(
                f"{self.name}: stores {self.stored} bits a pixel and names no window; its darkest pixel becomes black "
                "and its brightest white.",
                stacklevel=2,
            )
        return self._range

    def _windowed(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey levels by the window or VOI LUT of the file; without, by the range of the values of the loop."""
        dataset = self._dataset
        if dataset.get("RescaleSlope") == 0:
            raise self._one_level()
        rescaled = self._rescaled(values)
        if dataset.get("VOILUTSequence"):
            levels, white = self._by_lut(np.rint(rescaled).astype(np.int64), dataset.VOILUTSequence[0])
            return scaled(levels, 0, white)
        centre, width = (
            np.atleast_1d(np.asarray(dataset.get(keyword) or np.nan, np.float64))[0]
            for keyword in ("WindowCenter", "WindowWidth")
        )
        if dataset.get("WindowCenter") == 0:
            centre = 0.0
        if np.isnan(centre) or not width >= 1:
            low, high = self._range_of_loop()
            # Of the values of a table, which need not ascend, those between the lowest and the highest.
            has_table = dataset.get("ModalityLUTSequence") and self.stored <= _TABLE_BITS
            ends = self._rescaled(np.arange(low, high + 1) if has_table else np.array([low, high]))
            return scaled(rescaled, ends.min(), max(ends.max(), ends.min() + 1))
        # What the window maps its own ends to depends on bits and rescaling: ask it.
        black, white = apply_windowing(np.array([centre - width, centre + width]), dataset)
        if black == white:
            raise self._one_level()
        return scaled(apply_windowing(rescaled, dataset), black, white)

    def _one_level(self) -> VideoReadError:
        return self._error(
            "maps every value to one grey level (RescaleSlope or window)", "export it again without rescaling"
        )

    def _rescaled(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Stored values after the modality transformation of the file."""
        dataset = self._dataset
        if dataset.get("ModalityLUTSequence"):
            return self._by_lut(values, dataset.ModalityLUTSequence[0])[0].astype(np.float64)
        if dataset.get("RescaleSlope") is not None:
            return values * float(dataset.RescaleSlope) + float(dataset.get("RescaleIntercept") or 0)
        return values.astype(np.float64)

    def _by_lut(self, values: NDArray[np.int64], item: Dataset) -> tuple[NDArray[Any], int]:
        """Values mapped by a look-up table, and the highest that it can give."""
        count, first, bits = (int(number) for number in item["LUTDescriptor"].value)
        count, first = count or 2**16, first - 2**16 if self.signed and first >= 2**15 else first
        data = item["LUTData"].value
        is_raw = isinstance(data, bytes)
        table = _table_entries(data, count, bits, self._dataset.original_encoding[1]) if is_raw else np.array(data)
        return table[np.clip(values - first, 0, len(table) - 1)], 2**bits - 1

    def _palette(self, values: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Red, green and blue of every stored value, shape (values, 3)."""
        little = self._dataset.original_encoding[1]
        channels = []
        for colour in COLOURS:
            count, first, bits = self._dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
            count, first = count or 2**16, first - 2**16 if self.signed and first >= 2**15 else first
            data = self._dataset.get(f"{colour}PaletteColorLookupTableData")
            if data:
                table = _table_entries(data, count, bits, little)
            else:
                data = self._dataset[f"Segmented{colour}PaletteColorLookupTableData"].value
                words = _bytes_in_order(data, little) if bits == 8 else np.frombuffer(data, "<u2" if little else ">u2")
                table = np.array(_expand_segments(words.tolist(), count, 1 if bits == 8 else 2))
            # Tables of 8 bits may be announced as 16.
            white = 255 if bits == 8 or table.max() < _LEVELS else 2**16 - 1
            channels.append(scaled(table, 0, white)[np.clip(values - first, 0, len(table) - 1)])
        return np.stack(channels, axis=-1)


def scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Values as grey levels."""
    levels = (values.astype(np.float64) - black) * (255.0 / (white - black))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _is_ybr(frame: NDArray[np.uint8], label: bool) -> bool:
    """Whether a frame (H, W, 3) is YCbCr and not RGB: most of an echo is gray, which tells, else the label counts."""
    first, second, third = (frame[..., channel].astype(np.int16) for channel in range(3))
    as_rgb = float(np.abs(second - first).mean() + np.abs(third - first).mean())
    as_ybr = float(np.abs(second - 128).mean() + np.abs(third - 128).mean())
    if label:
        return not as_rgb * _CLEARLY < as_ybr
    return as_ybr * _CLEARLY < as_rgb


def _table_entries(data: bytes, count: int, bits: int, little: bool) -> NDArray[Any]:
    """Entries of a palette, in bytes or in words, of which 8 bits may fill the lower half or the upper."""
    if len(data) < 2 * count:
        return _bytes_in_order(data, little)[:count]
    words = np.frombuffer(data[: 2 * count], "<u2" if little else ">u2")
    if bits == 8:
        return words & 0xFF if (words & 0xFF).any() else words >> 8
    return words


def _bytes_in_order(data: bytes, little: bool) -> NDArray[np.uint8]:
    """Bytes that stand in words, the first of two in the lower half."""
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2").astype("<u2").view(np.uint8)


def _expand_segments(words: list[int], count: int, word_bytes: int) -> list[int]:
    """Entries of a segmented palette, DICOM PS3.3 C.7.9.2: runs of values, straight lines and references to both."""
    table: list[int] = []
    offset_words = 4 // word_bytes

    def expand(place: int, num_segments: int, nested: bool) -> None:
        for _ in range(num_segments):
            if place + 1 >= len(words) or len(table) >= count:
                return
            kind, length, place = words[place], words[place + 1], place + 2
            if kind == 0:
                table.extend(words[place : place + length])
                place += length
            elif kind == 1:
                table.extend(np.rint(np.linspace(table[-1], words[place], length + 1)[1:]).astype(int).tolist())
                place += 1
            elif kind == 2 and not nested:
                parts = words[place : place + offset_words]
                expand(sum(part << 8 * word_bytes * power for power, part in enumerate(parts)), length, True)
                place += offset_words
            else:
                raise ValueError("unknown segment of a palette")

    expand(0, len(words), False)
    return table
