"""EchoNet-Dynamic as a Hugging Face data set, cached or streamed, with a new cache for every change of its files."""

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
from .layouts.echonet_dynamic import (
    FILE_LIST_NAME,
    SPLIT_NAMES,
    EchoNetFormatError,
    layout_fingerprint,
    read_file_list,
)


__all__ = ["EchoNetFormatError", "load_echonet_dynamic"]

_FEATURES: dict[str, Any] = {
    "video": datasets.Video(decode=False),
    "file_name": datasets.Value("string"),
    "ejection_fraction": datasets.Value("float64"),
    "end_systolic_volume": datasets.Value("float64"),
    "end_diastolic_volume": datasets.Value("float64"),
    "frame_height": datasets.Value("int32"),
    "frame_width": datasets.Value("int32"),
    "num_frames": datasets.Value("int32"),
    "fps": datasets.Value("float64"),
}
_FROM_HEADER = {"frame_height": "height", "frame_width": "width", "num_frames": "num_frames", "fps": "fps"}
_SPLIT_ORDER = ("train", "validation", "test")
_CITATION = """\
@article{ouyang2020video,
  title = {Video-based {AI} for beat-to-beat assessment of cardiac function},
  author = {Ouyang, David and He, Bryan and Ghorbani, Amirata and others},
  journal = {Nature}, volume = {580}, pages = {252--256}, year = {2020}
}"""


@dataclass
class EchoNetDynamicConfig(datasets.BuilderConfig):
    """Options of the builder; `extra_columns` are columns of FileList.csv beyond the known ones, kept as text."""

    require_tracings: bool = False
    extra_columns: tuple[str, ...] = ()


class EchoNetDynamicBuilder(datasets.GeneratorBasedBuilder):
    """Builder behind `load_echonet_dynamic`."""

    BUILDER_CONFIG_CLASS = EchoNetDynamicConfig
    VERSION = datasets.Version("1.0.0")

    def _info(self) -> datasets.DatasetInfo:
        extra = {column: datasets.Value("string") for column in self.config.extra_columns}
        return datasets.DatasetInfo(
            description="Apical four-chamber echocardiogram videos with ejection fraction in percent.",
            features=datasets.Features(_FEATURES | extra),
            homepage="https://echonet.github.io/dynamic/",
            license="Stanford University School of Medicine EchoNet-Dynamic research use agreement",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        rows = read_file_list(self.config.data_dir, require_tracings=self.config.require_tracings)
        # A list in gen_kwargs is what a streamed data set shards by: its rows, here, over loader workers.
        return [
            datasets.SplitGenerator(name=name, gen_kwargs={"rows": [row for row in rows if row["split"] == name]})
            for name in _SPLIT_ORDER
            if any(row["split"] == name for row in rows)
        ]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, row in enumerate(rows):
            example = {name: row[name] for name in self.info.features}
            if any(example[name] is None for name in _FROM_HEADER):
                header = probe_video(row["video"])
                example |= {
                    name: getattr(header, attribute)
                    for name, attribute in _FROM_HEADER.items()
                    if example[name] is None
                }
            yield index, example


def load_echonet_dynamic(
    data_dir: str | os.PathLike[str],
    split: str | datasets.Split | None = None,
    streaming: bool = False,
    *,
    require_tracings: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Load EchoNet-Dynamic, or any folder of the same layout.

    The table is cached; the videos stay where they are. The cache depends on the contents of FileList.csv and on the
    name, size and modification time of every video, so an edited table or a replaced video gives a new data set. Frame
    size, number of frames and frame rate that FileList.csv does not state are read from the videos' headers.

    Args:
        data_dir: Folder with FileList.csv and Videos/.
        split: "train", "validation" or "test" ("TRAIN", "VAL" and "TEST" also work), joined ("train+validation") or
            sliced ("train[:10]", "test[:10%]"). Defaults to all splits in a dictionary.
        streaming: Read rows as they are needed instead of building the cache. Such a data set cannot be sliced by
            name.
        require_tracings: Keep only videos with an end-diastolic and an end-systolic tracing, as the paper does.
        cache_dir: Folder of the cache. Defaults to the cache of `datasets`.

    Returns:
        Rows with `video` (`{"path": ..., "bytes": None}`, for `read_video`), `file_name`, `ejection_fraction`
            (percent), `end_systolic_volume` and `end_diastolic_volume` (mL; `None` if absent), `frame_height` and
            `frame_width` (pixels), `num_frames`, `fps`, and any further columns of FileList.csv as text.

    Raises:
        EchoNetFormatError: If the folder is missing (the message says how to obtain the data) or its files are wrong.
        VideoReadError: If a header has to be read and cannot be.
        ValueError: If the split is unknown.
    """
    root = os.path.abspath(os.path.expanduser(os.fspath(data_dir)))
    rows = read_file_list(root, require_tracings=require_tracings)
    split = _canonical_split(split, {row["split"] for row in rows}, streaming)
    builder = EchoNetDynamicBuilder(
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        data_dir=root,
        hash=layout_fingerprint(root, require_tracings=require_tracings),
        require_tracings=require_tracings,
        extra_columns=tuple(name for name in rows[0] if name not in _FEATURES and name != "split"),
    )
    if streaming:
        return cast(datasets.IterableDataset, builder.as_streaming_dataset(split=split))
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, VideoReadError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split=split)


def _canonical_split(split: str | datasets.Split | None, present: set[str], streaming: bool) -> str | None:
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
            raise EchoNetFormatError(f"{FILE_LIST_NAME} has no row of the {name} split; it has {sorted(present)}.")
        if streaming and match[2]:
            raise ValueError(
                f"A streamed data set cannot be sliced by name ({part.strip()!r}); use .take() and .skip()."
            )
        parts.append((name or "all") + (match[2] or ""))
    return "+".join(parts)
