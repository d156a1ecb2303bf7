"""Pixels of DICOM images: where the frames are in a file, and the values that are stored there."""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

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
from .video_source_echomen import VideoReadError


try:
    from pydicom import uid
    from pydicom.dataset import Dataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
except ImportError:
    Dataset = None

__all__ = ["COLOUR_KINDS", "INSTALL_HINT", "TABLE_BITS", "DicomPixels"]

COLOUR_KINDS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422")
INSTALL_HINT = 'install the decoders with pip install "pydicom>=3" "pylibjpeg[libjpeg,openjpeg]"'
TABLE_BITS = 16  # stored values of more bits are converted one by one

_PIXEL_DATA = (0x7FE0, 0x0010)
_DECODED_KINDS = ("YBR_ICT", "YBR_RCT")  # decoders of JPEG 2000 make RGB of them
_GRAY_KINDS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_MAX_COMPONENTS = 4  # of a coded image
_HEADER_BYTES = 2**20  # of a coded image, at most
_RUNS_HEADER_BYTES = 2**10  # of a frame in RLE
_UNCHECKED_RUNS = 2**18  # bytes of RLE that may become 64 times as many without being looked at


class DicomPixels:
    """Frames of a DICOM image.

    Args:
        file: The file, at its pixel data element.
        dataset: What stands before that.
        shape: Number of frames, rows and columns that the header states.
        name: File name for messages.
    """

    def __init__(self, file: BinaryIO, dataset: Dataset, shape: tuple[int, int, int], name: str) -> None:
        self._file, self.dataset, self.name = file, dataset, name
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
                raise self.error("states a compression, but its pixel data are not encapsulated", "export it again")
            self._fragments, self._offsets = encapsulated_items(file, self._start, file.seek(0, 2))
            self._coded = self._group_fragments()
        elif self.allocated not in (1, 8, 16, 32):
            raise self.error(f"stores {self.allocated} bits a pixel, which is not supported", "export it with 8 bits")

    def error(self, problem: str, remedy: str) -> VideoReadError:
        """Error that names the file."""
        return VideoReadError.about(self.name, problem, remedy)

    def _find_pixel_data(self) -> tuple[bytes, int, int]:
        """Value representation, place and length of the pixel data."""
        implicit, little = self.dataset.original_encoding
        order = "<" if little else ">"
        head = self._file.read(12)
        place = self._file.tell() - len(head)
        if len(head) < 12 or struct.unpack_from(f"{order}2H", head) != _PIXEL_DATA:
            raise self.error(
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
                raise self.error(f"holds an image of {size[2]} colours", "export it again")
        else:
            most = 2 * most + _RUNS_HEADER_BYTES
            largest = self.rows * self.columns + 1  # with its padding
            if _UNCHECKED_RUNS < len(coded) <= most and run_length_decoded_size(coded, largest) > largest:
                size = None
        if size is None or size[:2] != stated or len(coded) > most:
            raise self.error(
                f"holds an image of {size[:2] if size else 'unknown'} pixels where its header says {stated}",
                "export it again",
            )

    def require_readable(self) -> None:
        """Refuse a compression or colours that cannot be decoded here, and images of another size than stated."""
        try:
            decoder = get_decoder(self.syntax)
        except NotImplementedError as error:
            raise self.error(
                f"uses a compression that cannot be decoded ({self.syntax.name})", "export it as JPEG or AVI"
            ) from error
        if not decoder.is_available:
            raise self.error(f"is compressed as {self.syntax.name}, without a decoder", INSTALL_HINT)
        known = {1: _GRAY_KINDS, 3: (*COLOUR_KINDS, *(_DECODED_KINDS if self._coded else ()))}
        if self.kind not in known.get(self.samples, ()):
            raise self.unknown_colour(self.kind)
        if self.kind == "PALETTE COLOR" and self.stored > TABLE_BITS:
            raise self.error(f"stores {self.stored} bits a pixel, which is not supported", "export it with 8 bits")
        for parts in self._coded or []:
            self._check_size(self._read(parts))

    def unknown_colour(self, kind: str) -> VideoReadError:
        """Error that names the photometric interpretation."""
        return self.error(
            f"stores {self.samples} values a pixel as {kind}, which is not supported", "export it as RGB or AVI"
        )

    def frame(self, index: int) -> tuple[NDArray[Any], str]:
        """One frame as it is stored, shape (H, W) or (H, W, 3), and its photometric interpretation."""
        if self._coded is None:
            return self._native(index), self.kind
        coded, dataset = self._read(self._coded[index]), self.dataset
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
        little = self.dataset.original_encoding[1]
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
        elif self.samples > 1 and self.dataset.get("PlanarConfiguration") == 1:
            return np.moveaxis(pixels.reshape(self.samples, self.rows, self.columns), 0, -1)
        shape = (self.rows, self.columns, self.samples)
        return pixels.reshape(shape[: 2 if self.samples == 1 else 3])

    @property
    def _shift(self) -> int:
        """Bits below those that are stored."""
        high = self.dataset.get("HighBit")
        shift = 0 if high is None else int(high) + 1 - self.stored
        return shift if 0 <= shift <= self.allocated - self.stored else 0

    def _stored_bits(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Values without the bits around them, which may hold anything."""
        if self.stored >= self.allocated:
            return pixels
        return pixels << (self.allocated - self.stored - self._shift) >> (self.allocated - self.stored)
