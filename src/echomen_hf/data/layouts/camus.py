"""CAMUS: NIfTI half beats of two views with a .cfg each, and three subgroups of patients."""

from __future__ import annotations

from pathlib import Path

from ...model.nifti_reading_echomen import read_cfg
from ...runs.files import hashed_name
from .layout import Layout
from .tables import LayoutError, RowCollector, VideoRows, listed


__all__ = ["CAMUS"]

VIEWS = ("4CH", "2CH")
_SAME_VIEW = {"A4C": "4CH", "A2C": "2CH"}
_SUBGROUPS = {"training": "train", "validation": "validation", "testing": "test"}
_NESTED = ("database_nifti", "CAMUS_public/database_nifti", ".")
_TEXTS = {"Sex": "sex", "Age": "age", "ImageQuality": "quality"}


def _database(root: Path) -> Path | None:
    """Folder of the patients."""
    folders = [root / nested for nested in _NESTED]
    return next((folder for folder in folders if any(folder.glob("patient*/Info_*.cfg"))), None)


def _read(root: Path, *, view: str = "4CH") -> VideoRows:
    database = _database(root)
    if database is None:
        raise LayoutError(f"{root} holds no database_nifti/patient*/Info_*.cfg.")
    patients = {folder.name: folder for folder in sorted(database.glob("patient*")) if folder.is_dir()}
    name = _SAME_VIEW.get(view.upper(), view.upper())
    if not any((folder / f"Info_{name}.cfg").is_file() for folder in patients.values()):
        present = {path.stem.removeprefix("Info_") for path in database.glob("patient*/Info_*.cfg")}
        raise LayoutError(f"{database} has no view {view!r}; it has {', '.join(sorted(present))}.")
    collector = RowCollector(database)
    subgroup_of = _subgroups(database.parent / "database_split", collector.problems)
    without_view: list[str] = []
    for patient, folder in patients.items():
        cfg = folder / f"Info_{name}.cfg"
        sequences = [folder / f"{patient}_{name}_half_sequence{suffix}" for suffix in (".nii.gz", ".nii")]
        sequence = next((path for path in sequences if path.is_file()), None)
        if subgroup_of and patient not in subgroup_of:
            collector.left_out.append(f"{patient} (in no subgroup)")
        elif sequence is None or not cfg.is_file():
            without_view.append(patient)
        else:
            values = read_cfg(cfg)
            collector.add(
                patient,
                f"{patient}_{name}",
                sequence,
                values.get("EF", ""),
                subgroup_of.get(patient),
                {"fps": values.get("FrameRate", "")},
                {"patient": patient, "view": name, **{text: values.get(key, "") for key, text in _TEXTS.items()}},
            )
    without_view += sorted(subgroup_of.keys() - patients.keys())
    if without_view:
        collector.problems.append(
            f"{len(without_view)} patients have no Info_{name}.cfg or half sequence of the view: "
            f"{listed(without_view)}; complete them, or take them out of the subgroups and the folder"
        )
    return collector.finish()


def _subgroups(folder: Path, problems: list[str]) -> dict[str, str]:
    """Patient to split; empty if the official subgroups are not there."""
    files = {subgroup: folder / f"subgroup_{subgroup}.txt" for subgroup in _SUBGROUPS}
    present = [subgroup for subgroup, file in files.items() if file.is_file()]
    if present and len(present) < len(files):
        absent = [subgroup for subgroup in files if subgroup not in present]
        raise LayoutError(
            f"{folder} has no subgroup {', '.join(absent)}; it has {', '.join(present)}. Complete it, or remove the "
            "folder: the patients are then divided at random."
        )
    subgroup_of: dict[str, str] = {}
    for subgroup in present:
        for line in files[subgroup].read_text(encoding="utf-8-sig").split():
            if subgroup_of.setdefault(line, _SUBGROUPS[subgroup]) != _SUBGROUPS[subgroup]:
                problems.append(
                    f"the patient {hashed_name(line)} (a hash of the name) is in subgroup {subgroup} and another one, "
                    "which would leak labels; keep each in one"
                )
    return subgroup_of


CAMUS = Layout(
    name="camus",
    title="Apical half beats with ejection fraction in percent, played back to a beat.",
    looks_for="database_nifti/patient*/Info_*.cfg",
    matches=lambda root: _database(root) is not None,
    read=_read,
    homepage="https://www.creatis.insa-lyon.fr/Challenge/camus/",
    citation="""\
@article{leclerc2019deep,
  title = {Deep Learning for Segmentation Using an Open Large-Scale Dataset in {2D} Echocardiography},
  author = {Leclerc, Sarah and Smistad, Erik and Pedrosa, Jo{\\~a}o and others},
  journal = {IEEE Transactions on Medical Imaging}, volume = {38}, pages = {2198--2210}, year = {2019}
}""",
)
