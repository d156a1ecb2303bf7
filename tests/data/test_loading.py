from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch.utils.data

from echomen_hf.data import loading as echonet_dynamic
from echomen_hf.data.loading import EchoNetFormatError, load_echonet_dynamic
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.model.video_source_echomen import VideoReadError


@pytest.fixture(autouse=True)
def quiet_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()


@pytest.fixture
def load(echonet: Any, tmp_path: Path) -> Callable[..., Any]:
    def loader(*args: Any, **kwargs: Any) -> Any:
        return load_echonet_dynamic(echonet.root, *args, cache_dir=tmp_path / "cache", **kwargs)

    return loader


def test_all_splits_with_their_features(load: Callable[..., Any], echonet: Any) -> None:
    data = load()
    assert isinstance(data, datasets.DatasetDict)
    assert {name: split.num_rows for name, split in data.items()} == {"train": 1, "validation": 1, "test": 1}
    features = data["train"].features
    assert {name: getattr(feature, "dtype", None) for name, feature in features.items() if name != "video"} == {
        "file_name": "string",
        "ejection_fraction": "float64",
        "end_systolic_volume": "float64",
        "end_diastolic_volume": "float64",
        "frame_height": "int32",
        "frame_width": "int32",
        "num_frames": "int32",
        "fps": "float64",
    }
    assert features["video"] == datasets.Video(decode=False)
    assert data["validation"][0] == {
        "video": {"path": str(echonet.root / "Videos" / "0XB.avi"), "bytes": None},
        "file_name": "0XB",
        "ejection_fraction": 35.25,
        "end_systolic_volume": 40.25,
        "end_diastolic_volume": 90.5,
        "frame_height": 32,
        "frame_width": 48,
        "num_frames": 6,
        "fps": 50.0,
    }


def test_the_video_column_can_be_read(load: Callable[..., Any]) -> None:
    assert read_video(load("train")[0]["video"]).frames.shape == (6, 32, 48)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("TRAIN", ["0XA"]),
        ("train", ["0XA"]),
        ("VAL", ["0XB"]),
        ("validation", ["0XB"]),
        ("test", ["0XC"]),
        (datasets.Split.TEST, ["0XC"]),
        ("train+VAL", ["0XA", "0XB"]),
        ("all", ["0XA", "0XB", "0XC"]),
        ("val[:1]", ["0XB"]),
        ("TRAIN[:1]+test[:100%]", ["0XA", "0XC"]),
    ],
)
def test_split_names_sums_and_slices(load: Callable[..., Any], split: str, names: list[str]) -> None:
    assert load(split)["file_name"][:] == names


@pytest.mark.parametrize(
    ("split", "names"), [("VAL", ["0XB"]), ("train+test", ["0XA", "0XC"]), ("all", ["0XA", "0XB", "0XC"])]
)
def test_streaming_gives_the_same_rows(load: Callable[..., Any], split: str, names: list[str]) -> None:
    stream = load(split, streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    rows = list(stream)
    assert [row["file_name"] for row in rows] == names
    assert rows == list(load(split))
    assert stream.features == load(split).features


def test_streaming_all_splits(load: Callable[..., Any]) -> None:
    data = load(streaming=True)
    assert isinstance(data, datasets.IterableDatasetDict)
    assert list(data) == ["train", "validation", "test"]


def test_streamed_rows_are_shared_out_over_workers(load: Callable[..., Any], echonet: Any, row: Any) -> None:
    for name in ("0XD", "0XE", "0XF"):
        echonet.add_video(name, num_frames=2)
    echonet.write_list([row(name, "TRAIN") for name in ("0XA", "0XD", "0XE", "0XF")])
    loader = torch.utils.data.DataLoader(load("train", streaming=True), batch_size=None, num_workers=2)
    assert sorted(item["file_name"] for item in loader) == ["0XA", "0XD", "0XE", "0XF"]


def test_streaming_cannot_slice(load: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot be sliced by name.*use \.take\(\)"):
        load("train[:1]", streaming=True)


@pytest.mark.parametrize("split", ["dev", "train[", "train[:1", "", "train,test"])
def test_unknown_split_lists_the_choices(load: Callable[..., Any], split: str) -> None:
    with pytest.raises(ValueError, match="choose train, validation"):
        load(split)


@pytest.mark.parametrize("streaming", [False, True])
def test_split_without_rows_is_named(load: Callable[..., Any], echonet: Any, row: Any, streaming: bool) -> None:
    echonet.write_list([row("0XA", "TRAIN")])
    assert list(load(streaming=streaming)) == ["train"]
    with pytest.raises(EchoNetFormatError, match=r"no row of the validation split; it has \['train'\]"):
        load("VAL", streaming=streaming)


class TestCache:
    def test_second_load_does_not_rebuild(self, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        first = load("train")

        def fail(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("the cache was not used")

        monkeypatch.setattr(echonet_dynamic.EchoVideosBuilder, "_generate_examples", fail)
        second = load("train")
        assert second._fingerprint == first._fingerprint
        assert second.cache_files == first.cache_files

    def test_edited_label_is_noticed(self, load: Callable[..., Any], echonet: Any) -> None:
        before = load("train")
        path = echonet.root / "FileList.csv"
        path.write_text(path.read_text().replace("61.5", "16.5"))
        after = load("train")
        assert (before[0]["ejection_fraction"], after[0]["ejection_fraction"]) == (61.5, 16.5)
        assert after._fingerprint != before._fingerprint

    def test_replaced_video_changes_what_is_derived_from_it(self, load: Callable[..., Any], echonet: Any) -> None:
        def lengths(data: datasets.Dataset) -> list[int]:
            return data.map(lambda row: {"length": read_video(row["video"]).num_frames})["length"][:]

        assert lengths(load("train")) == [6]
        echonet.add_video("0XA", num_frames=9)
        assert lengths(load("train")) == [9]

    def test_tracings_choose_another_cache(self, load: Callable[..., Any], echonet: Any) -> None:
        chords = [(0, 0, 0, 9), (0, 1, 5, 1), (0, 5, 5, 5), (0, 8, 5, 8)]
        wide = [(0, 0, 0, 9), (0, 1, 7, 1), (0, 5, 7, 5), (0, 8, 7, 8)]
        echonet.write_tracings({"0XA": {1: chords, 4: wide}})
        assert load("all").num_rows == 3
        assert load("all", require_tracings=True)["file_name"][:] == ["0XA"]
        assert load("all").num_rows == 3


class TestIncompleteTables:
    def test_missing_columns_are_read_from_the_headers(self, load: Callable[..., Any], echonet: Any) -> None:
        (echonet.root / "FileList.csv").write_text("FileName,EF,Split,FPS\n0XA,50,TRAIN,\n0XB,50,TRAIN,43\n")
        rows = load("train")
        assert [(r["num_frames"], r["frame_height"], r["frame_width"], r["fps"]) for r in rows] == [
            (6, 32, 48, 50.0),
            (6, 32, 48, 43.0),
        ]
        assert rows[0]["end_systolic_volume"] is None

    @pytest.mark.parametrize("streaming", [False, True])
    def test_unreadable_header_reaches_the_user_by_name(
        self, load: Callable[..., Any], echonet: Any, streaming: bool
    ) -> None:
        (echonet.root / "FileList.csv").write_text("FileName,EF,Split\n0XA,50,TRAIN\n")
        (echonet.root / "Videos" / "0XA.avi").write_bytes(b"not a video" * 20)
        with pytest.raises(VideoReadError, match=r"0XA\.avi: is not a video"):
            list(load("train", streaming=streaming))

    def test_further_columns_are_kept(self, load: Callable[..., Any], echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN", Sex="F", Age=61)])
        for streaming in (False, True):
            first = next(iter(load("train", streaming=streaming)))
            assert (first["Sex"], first["Age"]) == ("F", "61")

    def test_format_errors_are_raised_as_such(self, load: Callable[..., Any], echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN", 555)])
        with pytest.raises(EchoNetFormatError, match="line 2: EF must be a percentage"):
            load()

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(EchoNetFormatError, match=r"(?s)does not exist.*echomen simulate"):
            load_echonet_dynamic(tmp_path / "nowhere")


def test_float_labels_are_stored_exactly(load: Callable[..., Any], echonet: Any, row: Any) -> None:
    value = 78.4984063113504
    echonet.write_list([row("0XA", "TRAIN", value)])
    np.testing.assert_array_equal(load("train")["ejection_fraction"][:], [value])
