"""MIMIC-IV-ECHO-Ext-LVVOL-A4C: FileList.csv and a DICOM loop per study."""

from __future__ import annotations

from pathlib import Path

from .layout import Layout
from .tables import LayoutError, RowCollector, VideoRows, has_columns, read_csv


__all__ = ["MIMIC_LVVOL"]

_NUMBERS = {
    "LVESV_A4C": "end_systolic_volume",
    "LVEDV_A4C": "end_diastolic_volume",
    "number_of_frames": "num_frames",
    "frame_rate": "fps",
}


def _read(root: Path) -> VideoRows:
    path = root / "FileList.csv"
    if not path.is_file():
        raise LayoutError(f"{path} does not exist; pass the folder that holds it and dicom/.")
    header, lines = read_csv(path)
    if absent := [column for column in ("patient_id", "study_id", "LVEF_A4C") if column not in header]:
        raise LayoutError(f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}.")
    collector = RowCollector(path)
    for line, values in lines:
        row = dict(zip(header, values))
        study = row.pop("study_id")
        collector.add(
            f"line {line}",
            study,
            root / "dicom" / Path(f"{study}.dcm").name,
            row.pop("LVEF_A4C"),
            numbers={field: row.pop(column, "") for column, field in _NUMBERS.items()},
            texts={"patient": row.pop("patient_id"), "view": "A4C", **row},
        )
    return collector.finish(path)


MIMIC_LVVOL = Layout(
    name="mimic_lvvol",
    title="Apical four-chamber DICOM loops with ejection fraction in percent.",
    looks_for="FileList.csv with a column LVEF_A4C, and dicom/",
    matches=lambda root: has_columns(root / "FileList.csv", "LVEF_A4C", "study_id"),
    read=_read,
    unsplit="none",
    homepage="https://physionet.org/",
    license="PhysioNet Credentialed Health Data License",
)
