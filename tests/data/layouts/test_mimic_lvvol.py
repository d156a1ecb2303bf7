from __future__ import annotations

import numpy as np
import pytest

from echomen_hf import read_video
from echomen_hf.data import LayoutError
from helpers.data_sets import known_frames, write_mimic


def test_all_rows_are_a_test_set(tmp_path, load):
    data = load(write_mimic(tmp_path))
    assert {split: len(rows) for split, rows in data.items()} == {"test": 3}
    row = data["test"][1]
    np.testing.assert_array_equal(read_video(row["video"]).frames, known_frames(6, 24, 24, seed=1))
    expected = {
        "file_name": "94106956",
        "ejection_fraction": 48.25,
        "end_systolic_volume": 50.25,
        "end_diastolic_volume": 120.5,
        "frame_height": 24,
        "frame_width": 24,
        "num_frames": 6,
        "fps": 50.0,
        "patient": "10002221",
        "view": "A4C",
        "manufacturer": "Philips",
        "manufacturer_model": "EPIQ 7C",
    }
    assert {name: row[name] for name in expected} == expected


def test_split_by_patient(tmp_path, load):
    root = write_mimic(tmp_path, [{"patient_id": number // 2, "LVEF_A4C": 30 + number} for number in range(12)])
    data = load(root, split_by="patient")
    patients = {split: set(rows["patient"]) for split, rows in data.items()}
    assert {split: len(found) for split, found in patients.items()} == {"train": 4, "validation": 1, "test": 1}
    assert sum(len(rows) for rows in data.values()) == 12
    assert not patients["train"] & patients["test"]
    assert {split: set(rows["patient"]) for split, rows in load(root, split_by="patient").items()} == patients
    assert len(load(root)["test"]) == 12


def test_studies_without_an_ejection_fraction_are_kept_out(tmp_path, load, heard):
    root = write_mimic(tmp_path, [{}, {"LVEF_A4C": ""}, {}])
    assert len(load(root)["test"]) == 2
    assert "left out 1 of 3 videos: 94106956 (no EF)." in heard[0]


def test_missing_loops(tmp_path, load):
    root = write_mimic(tmp_path)
    (root / "dicom" / "94106956.dcm").unlink()
    with pytest.raises(LayoutError, match="1 of 3 videos are missing: 94106956; complete the folder"):
        load(root)


def test_names_cannot_leave_the_folder(tmp_path, load):
    root = write_mimic(tmp_path / "mimic")
    (root / "outside.dcm").write_bytes((root / "dicom" / "94106956.dcm").read_bytes())
    (root / "FileList.csv").write_text((root / "FileList.csv").read_text().replace(",94106956,", ",../outside,"))
    with pytest.raises(LayoutError, match=r"missing: \.\./outside"):
        load(root)
