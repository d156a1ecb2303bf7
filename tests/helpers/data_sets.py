"""Synthetic copies of the layouts of public data sets, written byte by byte, with frames that are known."""

from __future__ import annotations

import csv
import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset

from .video_files import encode_video


NIFTI_TYPES = {"u1": 2, "i2": 4, "f4": 16}


def known_frames(num_frames: int = 6, height: int = 24, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Frames that a turn, a mirror or another order would change: brightest at the top left, and each brighter."""
    time, rows, columns = np.ogrid[:num_frames, :height, :width]
    return (200 - 4 * rows - 2 * columns + 8 * time + seed).astype(np.uint8)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def nifti_bytes(
    frames: NDArray[Any],
    spacing: tuple[float, float] = (1.0, 1.0),
    *,
    time_step: float | None = None,
    units: int = 2,
    scaling: tuple[float, float] = (0.0, 0.0),
    display: tuple[float, float] = (0.0, 0.0),
    order: str = "<",
    **fields: Any,
) -> bytes:
    """A NIfTI-1 file of frames (t, y, x), stored as (x, y, t), or (x, y, 1, t) with a time step."""
    count, height, width = frames.shape
    kind = frames.dtype.str[1:]
    dim = [3, width, height, count, 1, 1, 1, 1] if time_step is None else [4, width, height, 1, count, 1, 1, 1]
    header = bytearray(352)
    put = {
        "sizeof_hdr": (0, "i", [348]),
        "dim": (40, "8h", dim),
        "datatype": (70, "h", [NIFTI_TYPES[kind]]),
        "bitpix": (72, "h", [8 * frames.dtype.itemsize]),
        "pixdim": (76, "8f", [1.0, *spacing, 1.0, time_step or 0.0, 0.0, 0.0, 0.0]),
        "vox_offset": (108, "f", [352.0]),
        "scaling": (112, "2f", scaling),
        "units": (123, "B", [units]),
        "display": (124, "2f", display[::-1]),  # the largest value first
        "magic": (344, "4s", [b"n+1\0"]),
    }
    for name, (place, form, values) in put.items():
        struct.pack_into(order + form, header, place, *fields.get(name, values))
    # x varies fastest in the file, so a frame is stored row by row.
    return bytes(header) + frames.astype(order + kind).tobytes()


def write_nifti(path: Path, frames: NDArray[Any], *args: Any, **options: Any) -> Path:
    """Write a NIfTI file, compressed if its name ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = nifti_bytes(frames, *args, **options)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_pediatric(root: Path, view: str = "A4C", rows: Sequence[Mapping[str, Any]] = ()) -> Path:
    """EchoNet-Pediatric with a clip for each of four folds, or with given values."""
    folder = root / "pediatric_echo_avi" / "pediatric_echo_avi" / view
    defaults = {"EF": 61.5, "Sex": "F", "Age": 7, "Weight": 23.1, "Height": 120.0, "Split": 0}
    found = []
    for number, values in enumerate(rows or [{"Split": fold, "EF": 55.5 + fold} for fold in range(4)]):
        row = {"FileName": f"CR32a755{number}-CR32a998{number}-00004{number}.avi", **defaults, **values}
        found.append(row)
        (folder / "Videos").mkdir(parents=True, exist_ok=True)
        path = folder / "Videos" / row["FileName"]
        encode_video(path, known_frames(seed=number), codec="ffv1", pix_fmt="gray")
    write_table(folder / "FileList.csv", found)
    return root


def write_camus(root: Path, patients: int = 6, split: bool = True, frames: int = 5) -> Path:
    """CAMUS with both views of some patients, of which the last two test and the one before them validates."""
    names = [f"patient{number:04}" for number in range(1, patients + 1)]
    for number, name in enumerate(names):
        for view in ("2CH", "4CH"):
            folder = root / "database_nifti" / name
            beat = known_frames(frames, 40, 16, seed=number)
            write_nifti(folder / f"{name}_{view}_half_sequence.nii.gz", beat, (0.308, 0.154))
            write_nifti(folder / f"{name}_{view}_ED.nii.gz", beat[:1], (0.308, 0.154))
            write_nifti(folder / f"{name}_{view}_ES.nii.gz", beat[-1:], (0.308, 0.154))
            write_nifti(folder / f"{name}_{view}_half_sequence_gt.nii.gz", beat % 4, (0.308, 0.154))
            (folder / f"Info_{view}.cfg").write_text(
                f"ED: 1\nES: {frames}\nNbFrame: {frames}\nSex: {'FM'[number % 2]}\nAge: {50 + number}\n"
                f"ImageQuality: {['Good', 'Medium', 'Poor'][number % 3]}\nEF: {40 + 3 * number}\nFrameRate: 48.4\n"
            )
    if split:
        folder = root / "database_split"
        folder.mkdir(parents=True)
        for subgroup, own in (("training", names[:-3]), ("validation", names[-3:-2]), ("testing", names[-2:])):
            (folder / f"subgroup_{subgroup}.txt").write_text("".join(f"{name}\n" for name in own))
    return root


def write_dicom(path: Path, frames: NDArray[np.uint8], frame_time: float | None = 20.0) -> Path:
    """An uncompressed gray cine loop whose region is the whole image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    region = pydicom.Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = frames.shape[2] - 1, frames.shape[1] - 1
    dataset.SequenceOfUltrasoundRegions = [region]
    if frame_time is not None:
        dataset.FrameTime = str(frame_time)
    dataset.PixelData = frames.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_mimic(root: Path, rows: Sequence[Mapping[str, Any]] = ()) -> Path:
    """MIMIC-IV-ECHO-Ext-LVVOL-A4C with three studies of two patients, or with given values."""
    found = []
    patients = [10002221, 10002221, 10002430]
    for number, values in enumerate(rows or [{"patient_id": patient} for patient in patients]):
        study = 94106955 + number
        write_dicom(root / "dicom" / f"{study}.dcm", known_frames(6, 24, 24, seed=number))
        found.append(
            {
                "patient_id": 1 + number,
                "study_date": "2178-03-01",
                "study_time": "10:00:00",
                "parent_dicom_path": f"files/p10/p10002221/s{study}/{study}_0001.dcm",
                "study_id": study,
                "modality": "US",
                "manufacturer": "Philips",
                "manufacturer_model": "EPIQ 7C",
                "rows": 24,
                "columns": 24,
                "number_of_frames": 6,
                "frame_rate": 50.0,
                "duration_seconds": 0.12,
                "file_size_mb": 0.1,
                "photometric_interpretation": "MONOCHROME2",
                "LVEDV_A4C": 120.5,
                "LVESV_A4C": 50.25,
                "LVEF_A4C": 58.25 - 10 * number,
                "LVEDV_BP": "",
                "LVESV_BP": "",
                "LVEF_BP": "",
                **values,
            }
        )
    write_table(root / "FileList.csv", found)
    return root
