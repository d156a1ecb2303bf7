from __future__ import annotations

import numpy as np
import pytest

from echomen_hf import read_video
from echomen_hf.data import LayoutError
from helpers.data_sets import known_frames, write_pediatric


def names(data):
    return {split: [name[-1] for name in rows["file_name"]] for split, rows in data.items()}


def test_rows_and_frames(tmp_path, load):
    data = load(write_pediatric(tmp_path))
    row = data["test"][0]
    del row["video"]
    assert row == {
        "file_name": "CR32a7550-CR32a9980-000040",
        "ejection_fraction": 55.5,
        "end_systolic_volume": None,
        "end_diastolic_volume": None,
        "frame_height": 24,
        "frame_width": 32,
        "num_frames": 6,
        "fps": 50.0,
        "patient": "CR32a7550",
        "view": "A4C",
        "sex": "F",
        "age": "7",
        "weight": "23.1",
        "height": "120.0",
    }
    for number, split in enumerate(("test", "validation", "train")):
        np.testing.assert_array_equal(read_video(data[split][0]["video"]).frames, known_frames(seed=number))


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        (0, {"train": ["2", "3"], "validation": ["1"], "test": ["0"]}),
        (2, {"train": ["0", "1"], "validation": ["3"], "test": ["2"]}),
        (3, {"train": ["1", "2"], "validation": ["0"], "test": ["3"]}),
    ],
)
def test_a_fold_tests_and_the_next_one_validates(tmp_path, load, fold, expected):
    assert names(load(write_pediatric(tmp_path), fold=fold)) == expected


def test_views(tmp_path, load):
    write_pediatric(tmp_path)
    write_pediatric(tmp_path, "PSAX", [{"EF": 41, "Split": fold} for fold in (0, 1, 2)])
    inner = tmp_path / "pediatric_echo_avi" / "pediatric_echo_avi"
    for root in (tmp_path, tmp_path / "pediatric_echo_avi", inner):
        assert load(root, view="psax")["test"][0]["ejection_fraction"] == 41
        assert load(root, view="4CH")["test"][0]["view"] == "A4C"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "PLAX"}, "no view 'PLAX'; it has A4C"),
        ({"view": "PSAX"}, "no view 'PSAX'; it has A4C"),
        ({"fold": 7}, "no fold 7; it has the folds 0, 1, 2, 3"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(tmp_path, load, options, message):
    with pytest.raises(LayoutError, match=message):
        load(write_pediatric(tmp_path), **options)


def test_odd_ejection_fractions_are_listed_and_kept_out(tmp_path, load, heard):
    values = [61.5, 104.2, 55, "", 48, "x", 50, -3]
    rows = [{"EF": value, "Split": fold % 4} for fold, value in enumerate(values)]
    data = load(write_pediatric(tmp_path, rows=rows))
    assert sum(len(split) for split in data.values()) == 4
    (message,) = heard
    assert "left out 4 of 8 videos: " in message
    for text in ("000041 (EF 104.2 is outside 0 to 100)", "000043 (no EF)", "'x' is no number", "EF -3 is outside"):
        assert text in message


def test_missing_videos_and_duplicates_come_in_one_error(tmp_path, load):
    rows = [{"Split": fold} for fold in range(4)]
    rows[3]["FileName"] = "CR32a7550-CR32a9980-000040.avi"
    root = write_pediatric(tmp_path, rows=rows)
    for video in sorted(root.rglob("*.avi"))[1:]:
        video.unlink()
    with pytest.raises(LayoutError) as error:
        load(root)
    assert "line 5: 'CR32a7550-CR32a9980-000040' already stands in line 2" in str(error.value)
    assert "2 of 3 videos are missing: CR32a7551-CR32a9981-000041, CR32a7552" in str(error.value)


def test_folds_that_are_no_numbers(tmp_path, load):
    root = write_pediatric(tmp_path, rows=[{"Split": 0}, {"Split": "TRAIN"}])
    with pytest.raises(LayoutError, match="folds must be numbers, got 'TRAIN'; it has the folds 0"):
        load(root)


def test_a_view_alone_is_no_folder_of_this_layout(tmp_path, load):
    root = write_pediatric(tmp_path) / "pediatric_echo_avi" / "pediatric_echo_avi" / "A4C"
    with pytest.raises(LayoutError, match="folds of EchoNet-Pediatric: pass the folder of both views"):
        load(root)
