"""Estimates of many files: kept as they come, continued after an end, shared between processes."""

from __future__ import annotations

import csv
import io
import math
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NAME, is_small_model
from ..labels import CATEGORY_TITLES
from ..model.clip_quality_echomen import ClipQualityWarning
from ..runs.files import escape_formula, folder_or_id, unescape_formula, weights_checksum
from ..runs.processes import process_rank
from .archive_files import ArchiveFile, Place, require_table
from .outlined_archive import OUTLINE_COLUMNS, outline_cells, require_beats, write_beats, write_pictures
from .predictor import Predictor
from .video_prediction import VideoPrediction


__all__ = ["COLUMNS", "predict_archive"]

COLUMNS = [
    *("file", "EF_pred", "interval_low", "interval_high", "category", "quality", "reasons"),
    *("expert_spread", "clip_sd", "clips"),
    *("model", "warning", "error", "protocol", "precision", "weights"),
]
"""Columns of the table; those of outlines, if there are any, and of a manifest follow."""

_NUMBERS = ("EF_pred", "interval_low", "interval_high", "expert_spread", "clip_sd")
_KNOWN = ("file", "EF_pred", "category", "expert_spread", "clip_sd", "clips", "error")  # in tables of any version
_RUN = ("model", "protocol", "precision", "weights")
_UPLOAD_SECONDS = 60

Row = dict[str, str]
Progress = Callable[[Iterable[Row], int], Iterable[Row]]


def predict_archive(
    predictor: Predictor,
    files: list[ArchiveFile],
    output: str | Path | None = None,
    *,
    model: str | Path | None = None,
    resume: bool = False,
    overlay: str | Path | None = None,
    progress: Progress = lambda rows, total: rows,
) -> list[Row]:
    """Estimate many files, and keep a row of each as soon as it is known.

    With a local `output`, whatever ends the process loses only what had not been computed: with the engine `torch` on
    CPUs the one file that was at its turn, elsewhere those of the batch, at most `batch_size` clips. Processes that
    `accelerate launch --multi_gpu` or `torch.distributed.run` started share the files, and the first of them puts
    their rows together at the end.

    A predictor that outlines gives more columns, and a table of all beats beside `output`, see `write_beats`.

    Args:
        predictor: Predictor.
        files: Files, from `list_files` or `read_manifest`.
        output: Table to write, Parquet if it ends in `.parquet` and else CSV, or its URL. In Parquet, CSV files beside
            it hold the rows until the end. A table at a URL is written once a minute. Defaults to none.
        model: What the predictor was loaded from, for the column `model`; a folder is named by its last part.
        resume: Whether to continue the table that `output` holds.
        overlay: Folder for a video with the outline and a picture of the volume curve of every file, by its name and
            `.mp4` or `.png`; without `output`, for the table of beats too. Defaults to none.
        progress: Function that is given the rows that are still to come and their number, and passes them on.

    Returns:
        A row for every file in their order. Processes after the first return nothing.

    Raises:
        ValueError: If there is an overlay to draw and the predictor does not outline, or its folder cannot be made,
            if several processes have no output, if the columns of a manifest are those of the table, if the output
            exists and is no such table, or if the output to continue is of other files, another model or another
            protocol.
    """
    if overlay is not None and predictor.outliner is None:
        raise ValueError("Overlays need outlines: make the predictor with `outline=True`, or add `--outline`.")
    if overlay is not None:
        try:
            Path(overlay).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            name = Path(overlay).name
            raise ValueError(f"--overlay: {name} cannot be a folder ({error.strerror}); name another.") from error
    rank, num_processes = process_rank()
    run = _describe_run(predictor, model)
    if predictor.outliner is not None and (beside := output or (overlay and Path(overlay) / "outlines.csv")):
        require_beats(beside)
    if output is None:
        if num_processes > 1:
            raise ValueError("Several processes can share files only with a table to write; name it as `--output`.")
        rows = list(progress(_predict(predictor, files, run, overlay), len(files)))
        if overlay is not None:
            write_beats(rows, Path(overlay) / "outlines.csv")
        return rows
    own = _columns(predictor)
    columns = [*own, *(files[0].columns if files else {})]
    if clashes := sorted(set(own) & set(columns[len(own) :])):
        raise ValueError(f"The manifest has columns that the output has too: {', '.join(clashes)}. Rename them.")
    table = _Table(Place(output), columns, [file.name for file in files], run, predictor.force)
    with _process_group(num_processes) as group:
        done = group.share(table.begin(resume) if rank == 0 else None)
        # By place in the list, so that processes agree whatever is done already.
        mine = [file for file in files[rank::num_processes] if file.name not in done]
        with table.writer(rank, num_processes) as write:
            for row in progress(_predict(predictor, mine, run, overlay), len(mine)):
                write(row)
        group.wait()
        rows = table.finish() if rank == 0 else []
        if rank == 0 and predictor.outliner is not None:
            write_beats(rows, output)
        group.wait()
    return rows


def _describe_run(predictor: Predictor, model: str | Path | None) -> Row:
    """Say by what a row was computed; the rows of one table have it in common."""
    folder = Path(SMALL_MODEL_FOLDER if model is None else model)
    return {
        "model": SMALL_MODEL_NAME if is_small_model(folder) else folder_or_id(str(model)),
        "protocol": predictor.protocol,
        "precision": "fp32" if predictor.engine is None else predictor.engine.precision,
        "weights": (weights_checksum(folder) or "")[:12],
    }


def _columns(predictor: Predictor) -> list[str]:
    return [*COLUMNS, *(OUTLINE_COLUMNS if predictor.outliner is not None else ())]


def _predict(predictor: Predictor, files: list[ArchiveFile], run: Row, overlay: str | Path | None) -> Iterator[Row]:
    """Make the row of each file, in which its name stands in place of its path, and its pictures before."""
    columns = _columns(predictor)
    with warnings.catch_warnings():
        heard: list[str] = []
        warnings.simplefilter("ignore", ClipQualityWarning)  # the column reasons has them
        warnings.showwarning = lambda message, *_, **__: heard.append(str(message))
        results = predictor.predict_files(file.source for file in files)
        for file, (_, result) in zip(files, results, strict=True):
            row = dict.fromkeys(columns, "") | {"file": file.name, **run, **file.columns}
            if overlay is not None and isinstance(result, VideoPrediction):
                try:
                    write_pictures(result.outline, Path(overlay), file.name)
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or error  # without the path of the picture
                    heard.append(f"{file.name}: the pictures of its outline could not be written: {reason}.")
            row["warning"] = file.without_path(" ".join(heard))
            heard.clear()
            yield row | _cells(file, result)


def _cells(file: ArchiveFile, result: VideoPrediction | Exception) -> Row:
    if isinstance(result, Exception):
        return {"error": file.without_path(str(result)) or type(result).__name__}
    low, high = result.interval or (math.nan, math.nan)
    outlined = {} if result.outline is None else outline_cells(result.outline)
    return {
        "EF_pred": _number(result.ejection_fraction),
        "interval_low": _number(low),
        "interval_high": _number(high),
        "category": "" if result.category is None else CATEGORY_TITLES[result.category],
        "quality": result.quality,
        "reasons": " ".join(result.reasons),
        "expert_spread": _number(result.expert_spread),
        "clip_sd": _number(result.clip_sd),
        "clips": str(result.num_clips),
        **outlined,
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


@dataclass(frozen=True)
class _Group:
    """Processes that share files."""

    num_processes: int

    def share(self, content: Any) -> Any:
        """Give all processes what the first one has."""
        if self.num_processes == 1:
            return content
        shared = [content]
        dist.broadcast_object_list(shared, src=0)
        return shared[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.num_processes > 1:
            dist.barrier()


@contextmanager
def _process_group(num_processes: int) -> Iterator[_Group]:
    if num_processes == 1:
        yield _Group(1)
        return
    # One process may finish days before another.
    dist.init_process_group("gloo", timeout=timedelta(days=365))
    try:
        yield _Group(num_processes)
    finally:
        dist.destroy_process_group()


class _Table:
    """The output, and beside it the rows of processes that have not been put together yet.

    Args:
        output: Where the table belongs.
        columns: Its columns.
        names: Names of all files, in their order.
        run: What all rows have in common, see `_describe_run`.
        force: Whether unusable videos get an EF, which their rows tell.
    """

    def __init__(self, output: Place, columns: list[str], names: list[str], run: Row, force: bool) -> None:
        self.output, self.columns, self.names, self.run, self.force = output, columns, names, run, force
        self.is_parquet = output.name.lower().endswith(".parquet")
        # A CSV file grows where it belongs; Parquet cannot grow.
        self.rows = output.beside(f"{output.name}.rows.csv") if self.is_parquet else output

    def begin(self, resume: bool) -> set[str]:
        """Put together what is there, or remove it, and tell which files are done; refuse files of another kind."""
        for place in (self.output, self.rows):
            require_table(place, _KNOWN, self._csv([]).decode())
        rows = self._gather() if resume else []
        self.rows.write(self._csv(rows))
        for part in self._parts():
            part.remove()
        if self.is_parquet and not resume:
            self.output.remove()
        return {row["file"] for row in rows}

    @contextmanager
    def writer(self, rank: int, num_processes: int) -> Iterator[Callable[[Row], None]]:
        """Open the file that takes the rows of one process."""
        place = self.rows
        if num_processes > 1:
            place = self.output.beside(f"{self.output.name}.part-{rank}-of-{num_processes}.csv")
            place.write(self._csv([]))
        if place.local is not None:
            # Every row is written at once.
            with place.local.open("a", newline="", encoding="utf-8", buffering=1) as file:
                yield lambda row: _write_rows(file, [row[name] for name in self.columns])
            return
        content = io.StringIO((place.read() or b"").decode("utf-8"), newline="")
        content.seek(0, io.SEEK_END)
        uploaded = time.monotonic()

        def write(row: Row) -> None:
            nonlocal uploaded
            _write_rows(content, [row[name] for name in self.columns])
            if time.monotonic() - uploaded > _UPLOAD_SECONDS:
                place.write(content.getvalue().encode())
                uploaded = time.monotonic()

        try:
            yield write
        finally:
            place.write(content.getvalue().encode())

    def finish(self) -> list[Row]:
        """Write the whole table, remove its parts, and give its rows."""
        rows = self._gather()
        self.output.write(self._parquet(rows) if self.is_parquet else self._csv(rows))
        for place in [*self._parts(), *([self.rows] if self.is_parquet else [])]:
            place.remove()
        return rows

    def _parts(self) -> list[Place]:
        return self.output.siblings(rf"{re.escape(self.output.name)}\.part-\d+-of-\d+\.csv")

    def _gather(self) -> list[Row]:
        """Read the rows of all files of this table, in the order of the input."""
        found: dict[str, Row] = {}
        if self.is_parquet and (data := self.output.read()) is not None:
            found |= self._check(self.output, *_from_parquet(data))
        for place in (self.rows, *self._parts()):
            data = place.read()
            header, rows = _from_csv(data or b"")
            if header:
                found |= self._check(place, header, rows)
        order = {name: number for number, name in enumerate(self.names)}
        if unknown := [name for name in found if name not in order]:
            raise ValueError(
                f"{self.output.name} holds rows of files that are not among those given, such as {unknown[0]}. Give "
                "the same files as before, choose another `--output`, or leave out `--resume` to start over."
            )
        return sorted(found.values(), key=lambda row: order[row["file"]])

    def _check(self, place: Place, header: list[str], rows: list[list[str]]) -> dict[str, Row]:
        """Refuse what is not of this run."""
        remedy = "Choose another `--output`, or leave out `--resume` to start over."
        if header != self.columns:
            differ = sorted(set(header) ^ set(self.columns)) or ["their order"]
            raise ValueError(f"{place.name} has other columns than those of this run ({', '.join(differ)}). {remedy}")
        found = {}
        for number, cells in enumerate(rows, 1):
            if len(cells) != len(header):
                raise ValueError(f"{place.name} is damaged: row {number} has {len(cells)} cells. {remedy}")
            row = dict(zip(header, cells))
            if changed := [name for name in _RUN if row[name] != self.run[name]]:
                listed = "; ".join(f"{name} was {row[name]!r} and is {self.run[name]!r}" for name in changed)
                raise ValueError(f"{place.name} holds rows of another run ({listed}). {remedy}")
            if row["quality"] == "unusable" and bool(row["EF_pred"]) != self.force:
                was, now = ("without", "with") if self.force else ("with", "without")
                raise ValueError(
                    f"{place.name} holds rows of unusable videos, such as {row['file']}, that were written {was} "
                    f"`--force`, and this run is {now} it. {remedy}"
                )
            found[row["file"]] = row
        return found

    def _csv(self, rows: list[Row]) -> bytes:
        text = io.StringIO(newline="")
        _write_rows(text, self.columns, *([row[name] for name in self.columns] for row in rows))
        return text.getvalue().encode()

    def _parquet(self, rows: list[Row]) -> bytes:
        import pandas as pd

        table = pd.DataFrame(rows, columns=self.columns, dtype="string")
        numbers, counts = _number_columns(self.columns)
        for name in numbers:
            table[name] = [float(cell or "nan") for cell in table[name]]
        for name in counts:
            table[name] = pd.array([int(cell) if cell else None for cell in table[name]], dtype="Int64")
        return table.to_parquet(index=False)


def _number_columns(columns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Columns of numbers with decimals and of whole numbers; a manifest may call its own as outlines call theirs."""
    if set(OUTLINE_COLUMNS) <= set(columns):
        return [*_NUMBERS, "EF_outline", "EF_outline_sd"], ["clips", "beats"]
    return [*_NUMBERS], ["clips"]


def _write_rows(file: Any, *rows: list[str]) -> None:
    csv.writer(file).writerows([escape_formula(cell) for cell in row] for row in rows)


def _from_csv(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Read columns and rows; a last line that was cut off is no row."""
    complete, quoted = 0, False
    for mark in re.finditer(rb'"|\r\n', data):
        if mark[0] == b'"':
            quoted = not quoted
        elif not quoted:
            complete = mark.end()
    lines = csv.reader(io.StringIO(data[:complete].decode("utf-8"), newline=""))
    header, *rows = [[unescape_formula(cell) for cell in line] for line in lines] or [[]]
    return header, rows


def _from_parquet(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Read columns and rows, with numbers as CSV has them."""
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(data))
    if not set(_NUMBERS) <= set(table):
        return list(table), []
    for name in _number_columns(table)[0]:
        table[name] = ["" if pd.isna(value) else f"{value:.2f}" for value in table[name]]
    return list(table), table.astype("string").fillna("").to_numpy().tolist()
