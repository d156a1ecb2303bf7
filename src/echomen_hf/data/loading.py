"""Videos of a folder as a Hugging Face data set, cached or streamed; every change of the files gives a new cache."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import datasets
from datasets.exceptions import DatasetGenerationError

from ..model.video_reading_echomen import probe_video
from ..model.video_source_echomen import VideoReadError
from .layouts.echonet_dynamic import EchoNetFormatError
from .layouts.registry import LAYOUTS, DataSet, read_data_set
from .layouts.tables import NUMBERS, SPLIT_NAMES, LayoutError


__all__ = ["EchoNetFormatError", "LayoutError", "load_echonet_dynamic", "load_rows", "load_videos"]

_NUMBER_FEATURES = {float: datasets.Value("float64"), int: datasets.Value("int32")}
_FEATURES: dict[str, Any] = {
    "video": datasets.Video(decode=False),
    "file_name": datasets.Value("string"),
    "ejection_fraction": datasets.Value("float64"),
    **{name: _NUMBER_FEATURES[kind] for name, kind in NUMBERS.items()},
}
_FROM_HEADER = {"frame_height": "height", "frame_width": "width", "num_frames": "num_frames", "fps": "fps"}
_SPLIT_ORDER = ("train", "validation", "test")


@dataclass
class EchoVideosConfig(datasets.BuilderConfig):
    """Options of the builder; `extra_columns` are columns beyond the known ones, kept as text."""

    layout: str = "echonet_dynamic"
    extra_columns: tuple[str, ...] = ()


class EchoVideosBuilder(datasets.GeneratorBasedBuilder):
    """Builder behind `load_videos`; `rows` are those of `read_data_set`."""

    BUILDER_CONFIG_CLASS = EchoVideosConfig
    VERSION = datasets.Version("1.0.0")

    def __init__(self, *args: Any, data_set: DataSet, **kwargs: Any) -> None:
        extra = {name: None for row in data_set.rows for name in row if name not in _FEATURES and name != "split"}
        super().__init__(
            *args,
            data_dir=str(data_set.root),
            hash=data_set.fingerprint,
            layout=data_set.layout.name,
            extra_columns=tuple(extra),
            **kwargs,
        )
        self.rows = data_set.rows

    def _info(self) -> datasets.DatasetInfo:
        layout = LAYOUTS[self.config.layout]
        extra = {column: datasets.Value("string") for column in self.config.extra_columns}
        return datasets.DatasetInfo(
            description=layout.title,
            features=datasets.Features(_FEATURES | extra),
            homepage=layout.homepage,
            license=layout.license,
            citation=layout.citation,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        # A list in gen_kwargs is what a streamed data set shards by: its rows, here, over loader workers.
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"rows": [row for row in self.rows if row["split"] == name]})
            for name in _SPLIT_ORDER
            if any(row["split"] == name for row in self.rows)
        ]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, row in enumerate(rows):
            example = {name: row.get(name) for name in self.info.features}
            if any(example[name] is None for name in _FROM_HEADER):
                header = probe_video(row["video"])
                example |= {
                    name: getattr(header, attribute)
                    for name, attribute in _FROM_HEADER.items()
                    if example[name] is None
                }
            yield index, example


def load_videos(
    data_dir: str | os.PathLike[str],
    layout: str | None = None,
    *,
    split: str | datasets.Split | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    split_by: str | None = None,
    split_file: str | os.PathLike[str] | None = None,
    **options: Any,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Load a data set of echo videos with their ejection fractions.

    The table is cached; the videos stay where they are. The cache depends on everything that the tables say and on the
    name, size and modification time of every video, so an edited table or a replaced video gives a new data set. Frame
    size, number of frames and frame rate that no table states are read from the videos' headers.

    A video without a usable EF (none, no number, outside 0 to 100) is left out, and a warning lists it; in
    `echonet_dynamic` it is an error.

    Args:
        data_dir: Folder of the data set; for the layout `table`, the CSV or Parquet file or a folder with one.
        layout: Layout of the folder: `"echonet_dynamic"`, `"echonet_pediatric"`, `"camus"`, `"mimic_lvvol"` or
            `"table"`. Defaults to the one that the folder is recognised by.
        split: "train", "validation" or "test" ("TRAIN", "VAL" and "TEST" also work), joined ("train+validation") or
            sliced ("train[:10]", "test[:10%]"). Defaults to all splits in a dictionary.
        streaming: Read rows as they are needed instead of building the cache. Such a data set cannot be sliced by
            name.
        cache_dir: Folder of the cache. Defaults to the cache of `datasets`.
        split_by: `"patient"` divides the videos at random by patient, 70 : 15 : 15, and `"none"` puts all into `test`.
            Defaults to the splits of the data set; where it has none, to `"none"` for `mimic_lvvol`, and else to
            `"patient"`.
        split_file: File that holds the division by patient, made if missing. Defaults to `echomen_splits.csv` beside
            the data or, if nothing can be written there, in the cache of `datasets`.
        options: Options of the layout: `require_tracings` (`echonet_dynamic`) keeps only videos with an end-diastolic
            and an end-systolic tracing; `view` is `"A4C"` or `"PSAX"` (`echonet_pediatric`), `"4CH"` or `"2CH"`
            (`camus`); `fold` 0 to 9 is the test fold, and the next one validates (`echonet_pediatric`); `columns` maps
            what a column means to its name (`table`), such as `{"path": "file", "ejection_fraction": "LVEF"}`, where
            the further meanings are `split`, `patient`, `fps`, `end_systolic_volume`, `end_diastolic_volume`, `sex`,
            `age`, `view` and `quality`.

    Returns:
        Rows with `video` (`{"path": ..., "bytes": None}`, for `read_video`), `file_name`, `ejection_fraction`
            (percent), `end_systolic_volume` and `end_diastolic_volume` (mL; `None` if absent), `frame_height` and
            `frame_width` (pixels), `num_frames`, `fps`, and further columns as text: `patient`, `view`, `sex`, `age`,
            `quality`, and others that the data set has.

    Raises:
        LayoutError: If the folder is missing, has no known layout or two, or its files are wrong.
        VideoReadError: If a header has to be read and cannot be.
        ValueError: If there is no such layout, option or split.
    """
    found = read_data_set(data_dir, layout, split_by=split_by, split_file=split_file, **options)
    return load_rows(found, split, streaming, cache_dir)


def load_rows(
    data_set: DataSet,
    split: str | datasets.Split | None = None,
    streaming: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Load rows that were read already, see `load_videos`.

    Args:
        data_set: What `read_data_set` returned.
        split: As in `load_videos`.
        streaming: As in `load_videos`.
        cache_dir: As in `load_videos`.

    Returns:
        As `load_videos`.

    Raises:
        LayoutError: If the data set has no such split.
        VideoReadError: If a header has to be read and cannot be.
        ValueError: If the split is unknown.
    """
    split = _canonical_split(split, {row["split"] for row in data_set.rows}, streaming, str(data_set.root))
    builder = EchoVideosBuilder(data_set=data_set, cache_dir=None if cache_dir is None else os.fspath(cache_dir))
    if streaming:
        return cast(datasets.IterableDataset, builder.as_streaming_dataset(split=split))
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, VideoReadError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def load_echonet_dynamic(
    data_dir: str | os.PathLike[str],
    split: str | datasets.Split | None = None,
    streaming: bool = False,
    *,
    require_tracings: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Load EchoNet-Dynamic, or any folder of the same layout: `load_videos` with `layout="echonet_dynamic"`.

    Args:
        data_dir: Folder with FileList.csv and Videos/.
        split: As in `load_videos`.
        streaming: As in `load_videos`.
        require_tracings: Keep only videos with an end-diastolic and an end-systolic tracing, as the paper does.
        cache_dir: As in `load_videos`.

    Returns:
        As `load_videos`; further columns of FileList.csv keep their names, as text.

    Raises:
        LayoutError: If the folder is missing (the message says how to obtain the data) or its files are wrong.
        VideoReadError: If a header has to be read and cannot be.
        ValueError: If the split is unknown.
    """
    return load_videos(
        data_dir,
        "echonet_dynamic",
        split=split,
        streaming=streaming,
        cache_dir=cache_dir,
        require_tracings=require_tracings,
    )


def _canonical_split(
    split: str | datasets.Split | None, present: set[str], streaming: bool, name_of_set: str
) -> str | None:
    """Split expression with the data set's own names of splits; slices and sums stay."""
    if split is None:
        return None
    parts = []
    for part in str(split).split("+"):
        match = re.fullmatch(r"\s*(\w+)\s*(\[[^]]*\]\S*)?\s*", part)
        name = SPLIT_NAMES.get(match[1].lower()) if match else None
        if match is None or (name is None and match[1] != "all"):
            raise ValueError(
                f"Unknown split {part.strip()!r}: choose train, validation (or val) or test, joined with + or sliced "
                "as in 'train[:10]'."
            )
        if name is not None and name not in present:
            raise LayoutError(f"{name_of_set} has no row of the {name} split; it has {sorted(present)}.")
        if streaming and match[2]:
            raise ValueError(
                f"A streamed data set cannot be sliced by name ({part.strip()!r}); use .take() and .skip()."
            )
        parts.append((name or "all") + (match[2] or ""))
    return "+".join(parts)
