from __future__ import annotations

import shutil

import numpy as np
import pytest

from echomen_hf import probe_video, read_video
from echomen_hf.data import LayoutError, validate_videos
from echomen_hf.model.gray_conversion_echomen import square_pixels
from helpers.data_sets import known_frames, write_camus, write_nifti


@pytest.fixture
def root(tmp_path):
    return write_camus(tmp_path / "camus")


def test_rows_and_frames(root, load, recwarn):
    data = load(root)
    assert {split: rows["patient"][:] for split, rows in data.items()} == {
        "train": ["patient0001", "patient0002", "patient0003"],
        "validation": ["patient0004"],
        "test": ["patient0005", "patient0006"],
    }
    row = data["validation"][0]
    video = read_video(row.pop("video"))
    assert row == {
        "file_name": "patient0004_4CH",
        "ejection_fraction": 49.0,
        "end_systolic_volume": None,
        "end_diastolic_volume": None,
        "frame_height": 40,
        "frame_width": 32,
        "num_frames": 65,
        "fps": 48.4,
        "patient": "patient0004",
        "view": "4CH",
        "sex": "M",
        "age": "53",
        "quality": "Good",
    }
    stored = known_frames(5, 40, 16, seed=3)
    expected = [square_pixels(stored[number], 2.0) for number in [*[0, 1, 2, 3, 4, 3, 2, 1] * 8, 0]]
    np.testing.assert_array_equal(video.frames, expected)
    assert video.fps == 48.4
    assert validate_videos(data, "frames", progress=False) == []
    assert not [warning for warning in recwarn if "frame rate" in str(warning.message)]


def test_views_and_their_other_names(root, load):
    for view in ("2CH", "a2c"):
        assert load(root, view=view)["test"]["file_name"][:] == ["patient0005_2CH", "patient0006_2CH"]
    with pytest.raises(LayoutError, match="no view 'PLAX'; it has 2CH, 4CH"):
        load(root, view="PLAX")


def test_patients_without_a_view_are_listed(root, load):
    for number in (2, 3):
        for path in (root / "database_nifti" / f"patient000{number}").glob("*4CH_half_sequence*"):
            path.unlink()
    (root / "database_nifti" / "patient0004" / "Info_4CH.cfg").unlink()
    shutil.rmtree(root / "database_nifti" / "patient0005")
    with pytest.raises(LayoutError) as error:
        load(root)
    message = "4 patients have no Info_4CH.cfg or half sequence of the view: patient0002, patient0003, patient0004, "
    assert message + "patient0005; complete them" in str(error.value)


def test_cfg_without_an_ejection_fraction_is_listed_and_kept_out(root, load, heard):
    cfg = root / "database_nifti" / "patient0001" / "Info_4CH.cfg"
    cfg.write_text(cfg.read_text().replace("EF: 40\n", ""))
    assert load(root)["train"]["patient"][:] == ["patient0002", "patient0003"]
    assert ["left out 1 of 6 videos: patient0001_4CH (no EF)." in message for message in heard] == [True]


def test_patients_of_no_subgroup_are_listed_and_kept_out(root, load, heard):
    (root / "database_split" / "subgroup_testing.txt").write_text("patient0005\n")
    assert load(root)["test"]["patient"][:] == ["patient0005"]
    assert ["left out 1 of 6 videos: patient0006 (in no subgroup)" in message for message in heard] == [True]


def test_subgroups_that_do_not_exist(root, load):
    (root / "database_split" / "subgroup_validation.txt").unlink()
    with pytest.raises(LayoutError, match="no subgroup validation; it has training, testing"):
        load(root)


def test_a_patient_of_two_subgroups_is_refused_without_the_name(root, load):
    (root / "database_split" / "subgroup_testing.txt").write_text("patient0001\npatient0005\npatient0006\n")
    with pytest.raises(LayoutError, match=r"the patient [0-9a-f]{16} \(a hash of the name\).*leak labels") as error:
        load(root)
    assert "patient0001" not in str(error.value).replace(str(root), "")


def test_without_subgroups_patients_are_divided(tmp_path, load, heard):
    root = write_camus(tmp_path, split=False)
    data = load(root)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 4, "validation": 1, "test": 1}
    # Both views of a patient are in the same split, whichever was read first.
    assert {split: rows["patient"][:] for split, rows in load(root, view="2CH").items()} == {
        split: rows["patient"][:] for split, rows in data.items()
    }
    assert str(root / "echomen_splits.csv") in heard[0]


def test_a_sequence_of_one_frame_is_a_problem_by_name(root, load):
    path = root / "database_nifti" / "patient0002" / "patient0002_4CH_half_sequence.nii.gz"
    write_nifti(path, known_frames(1, 40, 16), (0.308, 0.154))
    assert probe_video(path).num_frames == 1
    (problem,) = validate_videos(load(root), progress=False)
    assert problem.file == str(path)
    assert problem.problem == "has one frame; EF needs at least 2"
