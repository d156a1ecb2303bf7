"""Files of vectors of clips, made by an encoder of this package or any other: Parquet or safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..model.modeling_echomen import EchoMENModel
from ..runs.files import replacing
from .layouts.tables import SPLIT_NAMES, check_ejection_fractions, without_suffix


__all__ = ["ClipVectors", "encoder_checksum", "read_clip_vectors", "refuse_layout_options", "write_clip_vectors"]

SUFFIXES = (".parquet", ".safetensors")
# What a column may be called, in lower case and without underscores.
COLUMNS = {
    "file_name": ("filename", "file", "name"),
    "vector": ("vector", "embedding", "features"),
    "clip_start": ("clipstart", "start"),
    "draw": ("draw",),
    "split": ("split",),
    "ejection_fraction": ("ejectionfraction", "ef", "lvef"),
}
_TEXTS = ("file_name", "split")
_WITHOUT_GAPS = ("file_name", "clip_start", "draw")
_METADATA = ("protocol", "encoder_sha256")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ClipVectors:
    """Vectors of clips, and which video each is of.

    Args:
        name: Name of the file, for messages.
        vectors: Vectors, float32, shape (clips, D).
        file_names: Names of the videos, in the order of their first clip.
        clips: Positions of the clips of every video in `vectors`.
        ejection_fractions: EF of every video in percent, if the file has them; NaN where it has none.
        splits: Split of every video, if the file has them.
        protocol: Test protocol by which the clips were taken; `vectors` if the file does not say.
        encoder_sha256: `encoder_checksum` of the model that made them, if the file says it.
    """

    name: str
    vectors: torch.Tensor
    file_names: Sequence[str]
    clips: Sequence[NDArray[np.int64]]
    ejection_fractions: NDArray[np.float64] | None = None
    splits: Sequence[str] | None = None
    protocol: str = "vectors"
    encoder_sha256: str | None = None

    @property
    def size(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]

    def clips_of(self, rows: Any) -> list[NDArray[np.int64]]:
        """Find the clips of every video of a split.

        Args:
            rows: Rows of `load_videos`, or a list of dictionaries, with `file_name`.

        Raises:
            ValueError: If a video has no vector.
        """
        position = {without_suffix(name): index for index, name in enumerate(self.file_names)}
        names = list(rows["file_name"]) if hasattr(rows, "column_names") else [row["file_name"] for row in rows]
        missing = [name for name in names if without_suffix(name) not in position]
        if missing:
            raise ValueError(
                f"{self.name} has no vector of {len(missing)} of {len(names)} videos that have a label, such as "
                f"{missing[0]}: embed all videos, or leave these out of the data set."
            )
        return [self.clips[position[without_suffix(name)]] for name in names]

    def require_encoder_of(self, model: EchoMENModel) -> None:
        """Refuse a model with another encoder than the one that made the vectors, as far as both are known."""
        own = encoder_checksum(model) if self.encoder_sha256 is not None else None
        if own is not None and own != self.encoder_sha256:
            raise ValueError(
                f"The vectors in {self.name} were made by an encoder with other weights than the model's: make them "
                "again by `echomen embed` with this model, or give the model that made them."
            )

    def rows(self) -> datasets.DatasetDict:
        """Make a data set, without videos, of the labels and splits that the file itself has.

        Raises:
            ValueError: If it has none, or a label that is no ejection fraction in percent.
        """
        if self.ejection_fractions is None or self.splits is None:
            raise ValueError(
                f"{self.name} has no column EF, or no column Split: give the data set that has them as `--data_dir`, "
                "or add both columns to the file."
            )
        values = self.ejection_fractions
        wrong = np.flatnonzero(~((values >= 0) & (values <= 100)))
        if len(wrong):
            raise ValueError(
                f"{self.name}: the EF of {len(wrong)} videos is missing or not within 0 to 100 %, such as that of "
                f"{self.file_names[wrong[0]]}."
            )
        found: dict[str, list[int]] = {}
        for index, split in enumerate(self.splits):
            name = SPLIT_NAMES.get(str(split).strip().lower())
            if name is None:
                raise ValueError(
                    f"{self.name}: {self.file_names[index]} is in the split {split!r}; splits are TRAIN, VAL and TEST."
                )
            found.setdefault(name, []).append(index)
        check_ejection_fractions(
            self.name,
            [
                {"split": name, "ejection_fraction": values[index]}
                for name, indices in found.items()
                for index in indices
            ],
        )
        return datasets.DatasetDict(
            {
                name: datasets.Dataset.from_dict(
                    {
                        "file_name": [self.file_names[index] for index in found[name]],
                        "ejection_fraction": values[found[name]].tolist(),
                    }
                )
                for name in ("train", "validation", "test")
                if name in found
            }
        )


def read_clip_vectors(path: str | Path) -> ClipVectors:
    """Read a file of vectors.

    Args:
        path: `.parquet` with a row per clip: `file_name`, `vector` (a list of numbers, all of one length), and
            optionally `clip_start`, `draw`, `split` and `EF`; or `.safetensors` with a tensor `vectors`, shape
            (clips, D), and the other columns, each a list, as JSON in the metadata entry `columns`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, vectors have different lengths or hold NaN, a clip occurs twice, or a
            video has two labels.
    """
    path = Path(path)
    check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of vectors {path}.")
    reader = read_parquet if path.suffix == ".parquet" else read_safetensors
    vectors, columns, metadata = reader(path)
    names = columns["file_name"]
    if not len(vectors):
        raise ValueError(f"{path.name} holds no vector.")
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        finite = vectors[start : start + _ROWS_AT_ONCE].isfinite().all(dim=1)
        if not finite.all():
            bad = start + int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"{path.name}: the vector of clip {bad} ({names[bad]}) holds NaN or infinity; embed this video again."
            )
    clips, values = group_by_video(path.name, columns)
    return ClipVectors(
        path.name,
        vectors,
        list(clips),
        [np.array(positions, dtype=np.int64) for positions in clips.values()],
        None if "ejection_fraction" not in values else np.array(values["ejection_fraction"], dtype=np.float64),
        values.get("split"),
        metadata.get("protocol", "vectors"),
        metadata.get("encoder_sha256"),
    )


def encoder_checksum(model: EchoMENModel) -> str | None:
    """Compute the SHA-256 of an encoder's weights, in float32; `None` for a model without an encoder, or an export.

    Args:
        model: Model; whether it was just trained or loaded from its folder makes no difference.
    """
    encoder = cast(nn.Module, model.encoder)
    if next(encoder.parameters(), None) is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def refuse_layout_options(flags: Iterable[str]) -> None:
    """Refuse flags of a data set's layout where vectors bring their own labels."""
    if given := ", ".join(flags):
        raise ValueError(
            f"{given} says how to read a data set, and there is only a file of vectors: give the data set as "
            "`--data_dir`, or leave that out."
        )


def check_suffix(path: Path) -> None:
    """Refuse a file of another kind."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"Vectors are in {' or '.join(SUFFIXES)} files, got {path.name}.")


def group_by_video(
    name: str, columns: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[int]], dict[str, list[Any]]]:
    """Find the clips of every video, and the label and split of each.

    Refuse clips that occur twice, and names that differ in the ending alone, which labels could not tell apart.
    """
    clips: dict[str, list[int]] = {}
    spelled: dict[str, str] = {}
    shown: set[tuple[Any, ...]] = set()
    keys = [columns[key] for key in ("clip_start", "draw") if key in columns]
    for index, video in enumerate(columns["file_name"]):
        other = spelled.setdefault(without_suffix(video), video)
        if other != video:
            raise ValueError(
                f"{name}: {other} and {video} differ in the ending alone, and labels are found without it; write the "
                "name of a video in one way, and rename one of two videos."
            )
        clip = (video, *(float(key[index]) for key in keys))
        if clip in shown:
            remedy = "" if keys else " Clips of one video need a column `clip_start`."
            raise ValueError(f"{name}: two vectors are of the same clip, {clip}.{remedy}")
        shown.add(clip)
        clips.setdefault(video, []).append(index)
    values: dict[str, list[Any]] = {}
    for key in ("ejection_fraction", "split"):
        if key in columns:
            column = columns[key]
            values[key] = [column[positions[0]] for positions in clips.values()]
            for video, positions in clips.items():
                different = {str(column[position]) for position in positions}
                if len(different) > 1:
                    raise ValueError(f"{name}: {video} has different values of {key}: {', '.join(sorted(different))}.")
    return clips, values


def meaning_of(columns: Iterable[str]) -> dict[str, str]:
    """Find which column is which; both names by meaning."""
    plain = {column.lower().replace("_", ""): column for column in columns}
    return {key: plain[name] for key, names in COLUMNS.items() for name in reversed(names) if name in plain}


def read_parquet(path: Path) -> tuple[torch.Tensor, dict[str, Any], dict[str, str]]:
    """Read a Parquet file part by part, so that nothing but the vectors stays in memory."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False)  # which would hold the whole file
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path.name} is no Parquet file: {error}") from error
    found = meaning_of(file.schema_arrow.names)
    for key in ("file_name", "vector"):
        if key not in found:
            raise ValueError(f"{path.name} has no column {key}; it has {', '.join(file.schema_arrow.names)}.")
    vectors: torch.Tensor | None = None
    parts: dict[str, list[Any]] = {key: [] for key in found if key != "vector"}
    row = 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(found.values())):
        column = batch.column(found["vector"])
        is_list = (pa.types.is_list, pa.types.is_fixed_size_list, pa.types.is_large_list)
        if not any(is_kind(column.type) for is_kind in is_list) or not is_number(column.type.value_type):
            raise ValueError(f"{path.name}: the column {found['vector']} holds {column.type} and no lists of numbers.")
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        size = int(lengths[0]) if vectors is None else vectors.shape[1]
        wrong = np.flatnonzero(lengths != size)
        if len(wrong) or size == 0:
            bad = int(wrong[0]) if len(wrong) else 0
            raise ValueError(
                f"{path.name}: vectors have different lengths, {size} and {lengths[bad]} "
                f"({batch.column(found['file_name'])[bad]}); all must come from one encoder."
            )
        values = column.flatten().to_numpy(zero_copy_only=False)
        if vectors is None:
            vectors = torch.empty(file.metadata.num_rows, size)
        vectors[row : row + len(batch)] = torch.from_numpy(values.astype(np.float32).reshape(len(batch), size))
        row += len(batch)
        for key, part in parts.items():
            part.append(batch.column(found[key]))
    columns = {
        key: plain_column(path.name, key, found[key], pa.chunked_array(part), row)
        for key, part in parts.items()
        if part
    }
    stored = file.schema_arrow.metadata or {}
    metadata = {key: stored[key.encode()].decode() for key in _METADATA if key.encode() in stored}
    return torch.empty(0, 0) if vectors is None else vectors, {"file_name": [], **columns}, metadata


def is_number(kind: pa.DataType) -> bool:
    """Whether a type is one of numbers."""
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def plain_column(name: str, key: str, title: str, column: Any, num_clips: int) -> Any:
    """Convert a column, of Arrow or a list, to a list of texts or an array of numbers; refuse one of another kind."""
    place, kind = f"{name}: the column {title}", pa.string() if key in _TEXTS else pa.float64()
    try:
        values = (column if isinstance(column, pa.ChunkedArray) else pa.array(column)).cast(kind)
    except (pa.ArrowException, TypeError) as error:
        wanted = "texts" if key in _TEXTS else "numbers"
        raise ValueError(f"{place} must hold {wanted}, one for each clip: {error}.") from error
    if len(values) != num_clips:
        raise ValueError(f"{place} has {len(values)} values for {num_clips} vectors; it needs one for each.")
    gaps = np.flatnonzero(values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False))
    if len(gaps) and key in _WITHOUT_GAPS:
        raise ValueError(f"{place} has no value for clip {gaps[0]}; fill it in, or leave out the clip.")
    return values.to_pylist() if key in _TEXTS else values.to_numpy(zero_copy_only=False)


def read_safetensors(path: Path) -> tuple[torch.Tensor, dict[str, Any], dict[str, str]]:
    """Read a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            if "vectors" not in names:
                raise ValueError(f"{path.name} has no tensor `vectors`; it has {', '.join(names)}.")
            vectors = file.get_tensor("vectors").float()
        given = json.loads(metadata.get("columns", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is no safetensors file of vectors: {error}") from error
    found = meaning_of(given) if isinstance(given, dict) else {}
    if vectors.ndim != 2 or "file_name" not in found:
        raise ValueError(
            f"{path.name}: `vectors` must have shape (clips, D), and the metadata entry `columns` a list `file_name`; "
            f"got {tuple(vectors.shape)} and the columns {', '.join(found) or 'none'}."
        )
    columns = {key: plain_column(path.name, key, title, given[title], len(vectors)) for key, title in found.items()}
    return vectors, columns, metadata


def write_clip_vectors(
    path: str | Path,
    parts: Iterable[tuple[torch.Tensor, Mapping[str, Sequence[Any]]]],
    protocol: str,
    encoder_sha256: str | None = None,
) -> int:
    """Write a file of vectors whole or not at all, Parquet or safetensors by its suffix.

    Args:
        path: File to write.
        parts: Vectors, float32, shape (clips, D), and columns of as many values: `file_name`, `clip_start`, `draw`,
            `split` and `EF`; Parquet is written part by part.
        protocol: Test protocol by which the clips were taken.
        encoder_sha256: `encoder_checksum` of the model, by which vectors of another encoder are recognised later.

    Returns:
        Number of clips.
    """
    path = Path(path)
    check_suffix(path)
    metadata = {"protocol": protocol} | ({} if encoder_sha256 is None else {"encoder_sha256": encoder_sha256})
    count = 0
    with replacing(path) as partial:
        if path.suffix == ".safetensors":
            made = list(parts)
            joined = {key: [value for _, columns in made for value in columns[key]] for key in made[0][1]}
            vectors = torch.cat([vectors for vectors, _ in made])
            save_file({"vectors": vectors.contiguous()}, partial, {"columns": json.dumps(joined), **metadata})
            return len(vectors)
        writer: pq.ParquetWriter | None = None
        for vectors, columns in parts:
            flat = pa.array(vectors.contiguous().numpy().reshape(-1))
            table = pa.table({**columns, "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})
            table = table.replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(partial, table.schema)
            writer.write_table(table, _ROWS_AT_ONCE)
            count += len(vectors)
        if writer is not None:
            writer.close()
    return count
