"""EchoNet-Pediatric: a FileList.csv and Videos/ for each of two views, and ten folds instead of splits."""

from __future__ import annotations

from pathlib import Path

from .layout import Layout
from .tables import LayoutError, RowCollector, VideoRows, read_csv, without_suffix


__all__ = ["ECHONET_PEDIATRIC"]

VIEWS = ("A4C", "PSAX")
_SAME_VIEW = {"4CH": "A4C"}
_NESTED = (".", "pediatric_echo_avi", "pediatric_echo_avi/pediatric_echo_avi")
_TEXTS = {"sex": "sex", "age": "age", "weight": "weight", "height": "height"}


def _root(folder: Path) -> Path | None:
    """Folder of the views, which archives nest."""
    roots = [folder / nested for nested in _NESTED]
    return next((root for root in roots if any((root / view / "FileList.csv").is_file() for view in VIEWS)), None)


def _read(root: Path, *, view: str = "A4C", fold: int = 0) -> VideoRows:
    folder = _root(root)
    if folder is None:
        raise LayoutError(f"{root} holds neither {' nor '.join(f'{view}/FileList.csv' for view in VIEWS)}.")
    present = [name for name in VIEWS if (folder / name / "FileList.csv").is_file()]
    name = _SAME_VIEW.get(view.upper(), view.upper())
    if name not in present:
        raise LayoutError(f"{folder} has no view {view!r}; it has {', '.join(present)}.")
    path = folder / name / "FileList.csv"
    header, lines = read_csv(path)
    columns = {column.lower(): position for position, column in enumerate(header)}
    if absent := [column for column in ("FileName", "EF", "Split") if column.lower() not in columns]:
        raise LayoutError(f"{path}: no column {', '.join(absent)}; found {', '.join(header) or 'nothing'}.")
    entries = list(lines)
    folds = {values[columns["split"]] for _, values in entries}
    numbers = sorted(int(text) for text in folds if text.isdigit())
    if len(numbers) < len(folds) or fold not in numbers:
        wrong = sorted(text for text in folds if not text.isdigit())
        problem = f"folds must be numbers, got {wrong[0]!r}" if wrong else f"no fold {fold}"
        raise LayoutError(f"{path}: {problem}; it has the folds {', '.join(map(str, numbers)) or 'none'}.")
    splits = {str(fold): "test", str((fold + 1) % (max(numbers) + 1)): "validation"}
    collector = RowCollector(path)
    for line, values in entries:
        file = values[columns["filename"]]
        stem = without_suffix(file)
        texts = {text: values[columns[column]] for column, text in _TEXTS.items() if column in columns}
        collector.add(
            f"line {line}",
            stem,
            path.parent / "Videos" / Path(file if file != stem else f"{file}.avi").name,
            values[columns["ef"]],
            splits.get(str(int(values[columns["split"]])), "train"),
            texts={"patient": stem.split("-")[0], "view": name, **texts},
        )
    return collector.finish(path)


ECHONET_PEDIATRIC = Layout(
    name="echonet_pediatric",
    title="Echocardiogram videos of children with ejection fraction in percent.",
    looks_for="A4C/FileList.csv or PSAX/FileList.csv",
    matches=lambda root: _root(root) is not None,
    read=_read,
    homepage="https://echonet.github.io/pediatric/",
    license="Stanford University School of Medicine EchoNet-Pediatric research use agreement",
)
