"""Luma and colour of DICOM images: colour spaces, palettes, windows and look-up tables."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .colour_doppler_echomen import chroma_of_rgb, luma_of_rgb
from .dicom_pixels_echomen import COLOUR_KINDS, TABLE_BITS, DicomPixels
from .gray_conversion_echomen import full_range
from .video_source_echomen import VideoReadError


try:
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing
except ImportError:
    Dataset = None

__all__ = ["COLOURS", "DicomLevels"]

COLOURS = ("Red", "Green", "Blue")

_CLEARLY = 4.0  # times as far from gray, taken for one colour space as for the other
_LEVELS = 256
_BLOCK_PIXELS = 2**15  # that are converted at a time, since some conversions need 50 times the memory of a frame


class Levels(NamedTuple):
    """Luma of a frame, uint8, shape (H, W), and its Cb and Cr, neutral at 128, if it can have colour."""

    luma: NDArray[np.uint8]
    chroma: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None


class DicomLevels:
    """Conversion of the frames of a DICOM image to luma and chroma."""

    def __init__(self, pixels: DicomPixels) -> None:
        self._pixels = pixels
        self._tables: tuple[NDArray[np.uint8], ...] | None = None
        self._is_ybr: bool | None = None
        self._range: tuple[int, int] | None = None

    def of(self, index: int, with_chroma: bool) -> Levels:
        """Luma, and chroma if it is asked for, of one frame."""
        frame, kind = self._pixels.frame(index)
        if self._pixels.samples == 3:
            if kind not in COLOUR_KINDS:
                raise self._pixels.unknown_colour(kind)
            if self._is_ybr is None:
                # The first frame decides, whichever are asked for.
                first = frame if index == 0 else self._pixels.frame(0)[0]
                some = first[:: max(1, self._pixels.rows * self._pixels.columns // _BLOCK_PIXELS)]
                self._is_ybr = _is_ybr(self._eight_bits(some), kind != "RGB")
        elif self._pixels.stored <= TABLE_BITS and self._tables is None:
            self._tables = self._make_tables()
        step = max(1, _BLOCK_PIXELS // frame.shape[1])
        blocks = [self._levels_of(frame[top : top + step], kind, with_chroma) for top in range(0, len(frame), step)]
        if len(blocks) == 1:
            return blocks[0]
        chroma = [block.chroma for block in blocks if block.chroma is not None]
        blue, red = (np.concatenate(planes) for planes in zip(*chroma)) if chroma else (None, None)
        luma = np.concatenate([block.luma for block in blocks])
        return Levels(luma, None if blue is None or red is None else (blue, red))

    def _levels_of(self, rows: NDArray[Any], kind: str, with_chroma: bool) -> Levels:
        if self._pixels.samples == 1:
            return self._by_table(rows, with_chroma) if self._tables is not None else Levels(self._gray(rows), None)
        rows = self._eight_bits(rows)
        if not self._is_ybr:
            return Levels(luma_of_rgb(rows), chroma_of_rgb(rows) if with_chroma else None)
        luma = np.ascontiguousarray(rows[..., 0])
        return Levels(full_range(luma) if "PARTIAL" in kind else luma, (rows[..., 1], rows[..., 2]))

    def _eight_bits(self, frame: NDArray[Any]) -> NDArray[np.uint8]:
        if frame.dtype == np.uint8 and self._pixels.stored == 8:
            return frame
        return scaled(frame, 0, 2**self._pixels.stored - 1)

    @property
    def _lowest(self) -> int:
        return -(2 ** (self._pixels.stored - 1)) if self._pixels.signed else 0

    def _by_table(self, frame: NDArray[Any], with_chroma: bool) -> Levels:
        tables = self._tables
        if not tables:
            return Levels(np.ascontiguousarray(frame), None)
        places = np.clip(frame.astype(np.int64) - self._lowest, 0, 2**self._pixels.stored - 1)
        luma, *chroma = (table[places] for table in (tables if with_chroma else tables[:1]))
        return Levels(luma, (chroma[0], chroma[1]) if chroma else None)

    def _make_tables(self) -> tuple[NDArray[np.uint8], ...]:
        """Luma, and for a palette Cb and Cr, of every stored value; nothing if it is the value itself."""
        low, count = self._lowest, 2**self._pixels.stored
        values = np.arange(low, low + count)
        if self._pixels.kind == "PALETTE COLOR":
            palette = self._palette(values)
            blue, red = chroma_of_rgb(palette[None])
            return luma_of_rgb(palette), blue[0], red[0]
        if self._pixels.stored == 8 and not self._pixels.signed and self._pixels.kind == "MONOCHROME2":
            return ()
        return (self._gray(values),)

    def _gray(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey levels of stored values."""
        low, high = self._lowest, self._lowest + 2**self._pixels.stored - 1
        gray = self._windowed(values) if self._pixels.stored > 8 else scaled(values, low, high)
        return 255 - gray if self._pixels.kind == "MONOCHROME1" else gray

    def _range_of_loop(self) -> tuple[int, int]:
        """Lowest and highest stored value of all frames before the first that is damaged."""
        if self._range is None:
            low, high = [], []
            for index in range(self._pixels.found):
                try:
                    frame, _ = self._pixels.frame(index)
                except Exception:
                    break
                low.append(int(frame.min()))
                high.append(int(frame.max()))
            self._range = min(low, default=0), max(high, default=0)
            warnings.warn(
                f"{self._pixels.name}: stores {self._pixels.stored} bits a pixel and names no window; its darkest "
                "pixel becomes black and its brightest white.",
                stacklevel=2,
            )
        return self._range

    def _windowed(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Grey levels by the window or VOI LUT of the file; without, by the range of the values of the loop."""
        dataset = self._pixels.dataset
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
            has_table = dataset.get("ModalityLUTSequence") and self._pixels.stored <= TABLE_BITS
            ends = self._rescaled(np.arange(low, high + 1) if has_table else np.array([low, high]))
            return scaled(rescaled, ends.min(), max(ends.max(), ends.min() + 1))
        # What the window maps its own ends to depends on bits and rescaling: ask it.
        black, white = apply_windowing(np.array([centre - width, centre + width]), dataset)
        if black == white:
            raise self._one_level()
        return scaled(apply_windowing(rescaled, dataset), black, white)

    def _one_level(self) -> VideoReadError:
        return self._pixels.error(
            "maps every value to one grey level (RescaleSlope or window)", "export it again without rescaling"
        )

    def _rescaled(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Stored values after the modality transformation of the file."""
        dataset = self._pixels.dataset
        if dataset.get("ModalityLUTSequence"):
            return self._by_lut(values, dataset.ModalityLUTSequence[0])[0].astype(np.float64)
        if dataset.get("RescaleSlope") is not None:
            return values * float(dataset.RescaleSlope) + float(dataset.get("RescaleIntercept") or 0)
        return values.astype(np.float64)

    def _by_lut(self, values: NDArray[np.int64], item: Dataset) -> tuple[NDArray[Any], int]:
        """Values mapped by a look-up table, and the highest that it can give."""
        count, first, bits = (int(number) for number in item["LUTDescriptor"].value)
        count, first = count or 2**16, first - 2**16 if self._pixels.signed and first >= 2**15 else first
        data = item["LUTData"].value
        little = self._pixels.dataset.original_encoding[1]
        table = _table_entries(data, count, bits, little) if isinstance(data, bytes) else np.array(data)
        return table[np.clip(values - first, 0, len(table) - 1)], 2**bits - 1

    def _palette(self, values: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Red, green and blue of every stored value, shape (values, 3)."""
        dataset = self._pixels.dataset
        little, channels = dataset.original_encoding[1], []
        for colour in COLOURS:
            count, first, bits = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
            count, first = count or 2**16, first - 2**16 if self._pixels.signed and first >= 2**15 else first
            data = dataset.get(f"{colour}PaletteColorLookupTableData")
            if data:
                table = _table_entries(data, count, bits, little)
            else:
                data = dataset[f"Segmented{colour}PaletteColorLookupTableData"].value
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
