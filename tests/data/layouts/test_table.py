from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from echomen_hf import read_video
from echomen_hf.data import LayoutError
from echomen_hf.data.layouts.table import parse_columns
from helpers.data_sets import known_frames, write_dicom, write_nifti, write_table
from helpers.video_files import encode_video


@pytest.fixture
def root(tmp_path):
    """A folder with a video of each kind."""
    folder = tmp_path / "hospital"
    (folder / "clips").mkdir(parents=True)
    encode_video(folder / "clips" / "a.avi", known_frames(seed=0), codec="ffv1", pix_fmt="gray")
    write_dicom(folder / "clips" / "b.dcm", known_frames(6, 24, 24, seed=1))
    write_nifti(folder / "c.nii.gz", known_frames(seed=2), time_step=0.02, units=10)
    return folder


def rows(**columns):
    """Rows of the three videos."""
    values = {"file": ["clips/a.avi", "clips/b.dcm", "c.nii.gz"], "LVEF": [61.5, 35.25, 44], **columns}
    return [dict(zip(values, row)) for row in zip(*values.values())]


def test_columns_are_guessed_and_said(root, load, heard):
    path = write_table(
        root / "list.csv",
        rows(
            Split=["train", "VAL", "testing"],
            PatientID=["p1", "p2", "p3"],
            Gender=["F", "M", ""],
            ESV=[40, "", 50],
            FPS=[43, "", ""],
            Ward=["north", "south", "east"],
        ),
    )
    data = load(root)
    assert {split: found["file_name"][:] for split, found in data.items()} == {
        "train": ["clips/a"],
        "validation": ["clips/b"],
        "test": ["c"],
    }
    row = data["train"][0]
    assert (row["patient"], row["sex"], row["Ward"], row["fps"], row["end_systolic_volume"]) == (
        "p1",
        "F",
        "north",
        43.0,
        40.0,
    )
    (message,) = heard
    assert message.startswith(f"{path}: columns were guessed: path is 'file', ejection_fraction is 'LVEF', split is")
    for number, (split, shape) in enumerate([("train", (24, 32)), ("validation", (24, 24)), ("test", (24, 32))]):
        np.testing.assert_array_equal(read_video(data[split][0]["video"]).frames, known_frames(6, *shape, seed=number))


@pytest.mark.parametrize(
    "columns", [{"path": "where", "ejection_fraction": "value"}, "path=where,ejection_fraction=value"]
)
def test_columns_by_name(root, load, heard, columns):
    found = [{"where": row["file"], "value": row["LVEF"], "EF": 1, "file": "x"} for row in rows()]
    write_table(root / "list.csv", found)
    data = load(root / "list.csv", columns=columns, split_by="none")
    assert data["test"]["ejection_fraction"][:] == [61.5, 35.25, 44.0]
    assert data["test"][0]["file"] == "x"
    assert heard == []


def test_parquet(root, load):
    frame = pd.DataFrame(rows(split=["train", "val", "test"], age=[61, None, 70]))
    frame.to_parquet(root / "list.parquet")
    data = load(root)
    assert [data[split][0]["ejection_fraction"] for split in ("train", "validation", "test")] == [61.5, 35.25, 44.0]
    assert data["validation"][0]["age"] == ""


def test_absolute_paths_are_named_without_the_folders_above(root, load):
    write_table(root / "list.csv", rows(file=[root / "clips/a.avi", root / "clips/b.dcm", root / "c.nii.gz"]))
    assert load(root, split_by="none")["test"]["file_name"][:] == ["clips/a", "clips/b", "c"]


def test_all_that_is_wrong_comes_in_one_error(root, load):
    table = rows(split=["train", "holdout", "test"], fps=["50", "", "fast"])
    table += [{**table[0]}, {**table[0], "file": ""}, {**table[0], "file": "gone.avi"}]
    write_table(root / "list.csv", table)
    with pytest.raises(LayoutError) as error:
        load(root)
    for text in (
        "line 3: split must be train, validation or test, got 'holdout'",
        "line 4: fps must be a number, got 'fast'",
        "line 5: 'clips/a' already stands in line 2",
        "line 6: file is empty",
        "1 of 3 videos are missing: gone;",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"EF": [1, 2, 3]}, {}, "columns LVEF and EF may both be the ejection_fraction; name one"),
        ({}, {"columns": {"path": "wo"}}, "no column wo; found file, LVEF"),
        ({"video": [1, 2, 3]}, {}, "columns file and video may both be the path"),
    ],
)
def test_columns_that_are_not_clear(root, load, columns, options, message):
    write_table(root / "list.csv", rows(**columns))
    with pytest.raises(LayoutError, match=message):
        load(root, **options)


def test_columns_that_are_absent(root, load):
    write_table(root / "list.csv", [{"where": "c.nii.gz", "value": 50}])
    with pytest.raises(LayoutError, match="no column is named like the path or the ejection_fraction; found where, v"):
        load(root, "table")


@pytest.mark.parametrize(
    ("text", "message"), [("LVEF", "must read like path=file"), ("ef=LVEF", "names ef, which no")]
)
def test_columns_that_cannot_be_read(text, message):
    with pytest.raises(ValueError, match=message):
        parse_columns(text)


def test_columns_as_json():
    assert parse_columns('{"path": "a=b", "fps": "Rate"}') == {"path": "a=b", "fps": "Rate"}


def test_fractions_are_refused(root, load):
    write_table(root / "list.csv", rows(LVEF=[0.6, 0.5, 0.4]))
    with pytest.raises(LayoutError, match="the column holds fractions; multiply it by 100"):
        load(root)


def test_unlabelled_rows_are_kept_out(root, load, heard):
    write_table(root / "list.csv", rows(LVEF=[60, "", "n.d."]))
    assert len(load(root, split_by="none")["test"]) == 1
    assert "left out 2 of 3 videos: clips/b (no EF), c (EF 'n.d.' is no number)" in heard[-1]
