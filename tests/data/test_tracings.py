"""Masks from the tracings of every layout, and what is said where there are none."""

import re
import shutil

import numpy as np
import pytest

from echomen_hf.data import LayoutError
from echomen_hf.data.layouts.echonet_dynamic import read_volume_tracings
from echomen_hf.data.tracings import polygon_mask, read_tracings
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.simulation import write_synthetic_echonet
from helpers.data_sets import known_frames, write_camus, write_mimic, write_nifti, write_pediatric, write_table


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("turn", [1, -1])
def test_a_polygon_has_the_area_of_its_pixels(turn):
    angle = turn * np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([30 + 20 * np.cos(angle), 25.3 + 15 * np.sin(angle)], axis=1)
    mask = polygon_mask(circle, 60, 70)
    assert mask.sum() == pytest.approx(np.pi * 20 * 15, rel=0.005)
    rows, columns = np.nonzero(mask)
    assert (columns.mean(), rows.mean()) == pytest.approx((30, 25.3), abs=0.05)


def test_a_polygon_is_cut_at_the_picture_and_may_have_a_level_edge():
    square = np.array([[-5, -5], [3.5, -5], [3.5, 2], [-5, 2]])
    assert polygon_mask(square, 10, 10).nonzero()[0].max() in (1, 2)
    assert polygon_mask(square, 10, 10)[:2].sum() == 8
    assert not polygon_mask(square + 100, 10, 10).any()


def test_chords_of_echonet_dynamic_become_masks(tmp_path):
    write_synthetic_echonet(tmp_path / "data", 3, seed=4, num_workers=0, progress=False, frames_range=(28, 60))
    tracings = read_tracings(tmp_path / "data")
    assert [tracing.moment for tracing in tracings] == ["end_diastole", "end_systole"] * 3

    traced = read_volume_tracings(tmp_path / "data")
    for tracing in tracings:
        chords = getattr(traced[tracing.file_name], tracing.moment.replace("tole", "tolic") + "_chords")
        mask = tracing.mask(112, 112)
        # between the first and the last of 20 disks lie 19
        height = np.hypot(*(chords[0, 2:] - chords[0, :2])) / 20
        widths = np.hypot(*(chords[1:, 2:] - chords[1:, :2]).T)
        assert mask.sum() == pytest.approx(height * (widths[:-1] + widths[1:]).sum() / 2, rel=0.05)
        assert tracing.frame < len(read_video(tracing.video).frames)
    splits = {tracing.split for tracing in tracings}
    assert {tracing.split for tracing in read_tracings(tmp_path / "data", split="train")} == {"train"} < splits


def write_contours(root, systolic="4"):
    """Contours of the first two clips of EchoNet-Pediatric: a large and a small ellipse."""
    write_pediatric(root)
    folder = root / "pediatric_echo_avi" / "pediatric_echo_avi" / "A4C"
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    rows = []
    for video in sorted(folder.glob("Videos/*.avi"))[:2]:
        for frame, size in (("1", 9), (systolic, 6)):
            points = np.stack([15 + size * np.cos(angle), 12 + size * np.sin(angle)], axis=1)
            rows += [{"FileName": video.name, "X": x, "Y": y, "Frame": frame} for x, y in points]
    write_table(folder / "VolumeTracings.csv", rows)
    return folder


def test_contours_of_echonet_pediatric_become_masks(tmp_path):
    write_contours(tmp_path)
    tracings = read_tracings(tmp_path)
    assert [(tracing.frame, tracing.moment) for tracing in tracings] == [(1, "end_diastole"), (4, "end_systole")] * 2
    areas = [tracing.mask(24, 32).sum() for tracing in tracings]
    assert areas == pytest.approx([np.pi * 81, np.pi * 36] * 2, rel=0.03)


def test_a_clip_without_a_systolic_contour_is_left_out(tmp_path):
    write_contours(tmp_path, systolic="No Systolic")
    with pytest.raises(LayoutError, match="traced at both ends.*Simulation needs no tracings"):
        read_tracings(tmp_path)


def test_masks_of_camus_are_upright_and_fit_the_frames(tmp_path):
    pytest.importorskip("nibabel")
    write_camus(tmp_path, patients=4)
    labels = np.zeros((5, 40, 16), dtype=np.uint8)
    labels[:, 20:30, 2:6] = 2
    labels[0, 8:24, 4:12] = 1
    labels[4, 8:20, 4:10] = 1
    for path in tmp_path.rglob("*half_sequence_gt.nii.gz"):
        write_nifti(path, labels, (0.308, 0.154))
    diastole, systole = read_tracings(tmp_path, split="validation")
    assert (diastole.frame, systole.frame) == (0, 4)
    frames = read_video(diastole.video).frames
    mask = diastole.mask(*frames.shape[1:])
    expected = np.repeat(labels[0] == 1, 2, axis=1)
    assert dice(mask, expected) > 0.95
    assert dice(systole.mask(*frames.shape[1:]), np.repeat(labels[4] == 1, 2, axis=1)) > 0.95
    with pytest.raises(LayoutError, match="the mask has 32 x 40 pixels"):
        diastole.mask(50, 50)


def test_a_folder_without_its_tracings_says_what_is_missing(tmp_path):
    write_pediatric(tmp_path / "pediatric")
    with pytest.raises(LayoutError, match=r"VolumeTracings.csv does not exist.*Simulation needs no tracings"):
        read_tracings(tmp_path / "pediatric")
    write_camus(tmp_path / "camus", patients=4)
    for path in (tmp_path / "camus").rglob("*_gt.nii.gz"):
        path.unlink()
    with pytest.raises(LayoutError, match=r"half_sequence_gt.nii.gz does not exist"):
        read_tracings(tmp_path / "camus")
    write_synthetic_echonet(tmp_path / "echonet", 3, num_workers=0, progress=False, frames_range=(28, 30))
    (tmp_path / "echonet" / "VolumeTracings.csv").unlink()
    with pytest.raises(LayoutError, match=r"VolumeTracings.csv does not exist.*Simulation"):
        read_tracings(tmp_path / "echonet")


def test_a_layout_without_tracings_is_named(tmp_path):
    write_mimic(tmp_path)
    with pytest.raises(LayoutError, match=re.escape("mimic_lvvol, which holds no tracings")):
        read_tracings(tmp_path)


def test_a_missing_column_of_contours_is_named(tmp_path):
    folder = write_contours(tmp_path)
    write_table(folder / "VolumeTracings.csv", [{"FileName": "a.avi", "X1": 1, "Y": 2, "Frame": 3}])
    with pytest.raises(LayoutError, match="no column X;"):
        read_tracings(tmp_path)


def test_a_mask_that_is_no_nifti_is_refused(tmp_path):
    pytest.importorskip("nibabel")
    write_camus(tmp_path, patients=4)
    tracing = read_tracings(tmp_path, split="validation")[0]
    shutil.copy(__file__, tracing.outline)
    with pytest.raises(LayoutError, match="not a readable NIfTI"):
        tracing.mask(40, 32)
    write_nifti(tracing.outline, known_frames(1, 40, 16), (0.308, 0.154))
    with pytest.raises(LayoutError, match="no mask of frame 5"):
        read_tracings(tmp_path, split="validation")[1].mask(40, 32)
