"""Opening of DICOM files: the elements of the header that are asked for, within limits of time and memory."""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from .dicom_pixels_echomen import INSTALL_HINT
from .frame_collector_echomen import DEFAULT_MAX_BYTES
from .video_source_echomen import ResolvedSource, VideoReadError


try:
    import pydicom
    from pydicom import uid
    from pydicom.dataset import Dataset
except ImportError:
    pydicom = None

__all__ = ["number", "numbers_of", "open_dicom"]

_MAX_INFLATED = 2**28  # bytes
_INFLATED_BLOCK = 2**20  # bytes
_MOST_READS = 2**18  # of a header, which has hundreds of elements, and with private ones thousands
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MAX_META = 2**16  # bytes


@contextmanager
def open_dicom(
    resolved: ResolvedSource, keywords: list[str], max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[tuple[BinaryIO, Dataset, int]]:
    """Parse the named elements only, step over everything else, and leave the file at its pixel data.

    The third is the number of bytes to which it was inflated.
    """
    if pydicom is None:
        raise VideoReadError.about(resolved.name, "is DICOM, and pydicom is not installed", INSTALL_HINT)
    with resolved.open() as file:
        has_prefix, num_inflated = file.read(132)[128:] == b"DICM", 0
        if has_prefix and _DEFLATED in (meta := file.read(_MAX_META)):
            file, has_prefix = _inflate(file, meta, resolved.name, min(_MAX_INFLATED, max_bytes)), False
            num_inflated = file.getbuffer().nbytes
        file.seek(0)
        try:
            dataset = pydicom.dcmread(
                cast(BinaryIO, _Header(file)),
                force=not has_prefix,
                specific_tags=list(keywords),
                stop_before_pixels=True,
            )
        except Exception as error:
            raise VideoReadError.about(
                resolved.name, f"is not a readable DICOM file ({type(error).__name__})", "copy or export it again"
            ) from error
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit_syntax = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit_syntax
        yield file, dataset, num_inflated


def number(dataset: Dataset, keyword: str) -> float | None:
    """Value of a numeric element; `None` if it is absent, empty or not a number."""
    try:
        return float(dataset[keyword].value)
    except (KeyError, TypeError, ValueError):
        return None


def numbers_of(dataset: Dataset, keyword: str) -> NDArray[np.float64]:
    """Values of a numeric element, none if it is absent or not of numbers."""
    try:
        return np.atleast_1d(np.asarray(dataset[keyword].value, np.float64))
    except (KeyError, TypeError, ValueError):
        return np.empty(0)


class _Header:
    """A file whose header pydicom parses, element by element; 200 MB of zeros are 25 million, which take a minute."""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self._reads = file.read, itertools.count(1)
        self.seek, self.tell = file.seek, file.tell

    def read(self, *size: int) -> bytes:
        if next(self._reads) > _MOST_READS:
            raise ValueError("its header has too many elements")
        return self._read(*size)


def _inflate(file: BinaryIO, meta: bytes, name: str, limit: int) -> io.BytesIO:
    """Data set of a Deflated file, which may be a thousand times as long as the file.

    It is inflated twice, since a buffer that grows takes twice its size wherever memory cannot be moved.
    """
    if meta[:4] != b"\x02\0\0\0":
        raise VideoReadError.about(name, "is a Deflated DICOM file with a damaged header", "export it uncompressed")
    start = 132 + 12 + int.from_bytes(meta[8:12], "little")
    size = 0
    for block in _inflated_blocks(file, start):
        size += len(block)
        if size > limit:
            raise VideoReadError.about(
                name, f"is Deflated and inflates to more than {limit} bytes", "export it as JPEG or uncompressed"
            )
    inflated = io.BytesIO()
    inflated.seek(max(size - 1, 0))
    inflated.write(b"\0")  # makes the buffer exactly as large as needed
    inflated.seek(0)
    for block in _inflated_blocks(file, start):
        inflated.write(block)
    return inflated


def _inflated_blocks(file: BinaryIO, start: int) -> Iterator[bytes]:
    file.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while not inflater.eof and (data := inflater.unconsumed_tail or file.read(_INFLATED_BLOCK)):
        yield inflater.decompress(data, _INFLATED_BLOCK)
