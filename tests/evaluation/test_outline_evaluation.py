"""Agreement with known outlines."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from echomen_hf.data.tracings import read_tracings
from echomen_hf.evaluation import outline_evaluation
from echomen_hf.evaluation.outline_evaluation import (
    calibrate_outliner,
    dice,
    evaluate_outlines_on_simulation,
    evaluate_outlines_on_tracings,
    outline_section,
)
from echomen_hf.evaluation.simulation_examination import (
    CALIBRATION_SEED_OFFSET,
    TEST_SEED_OFFSET,
    examination_videos,
)
from echomen_hf.simulation import SimulatedFrames, write_synthetic_echonet


class Oracle:
    """Knows the masks of the video that is asked for next, and draws them a pixel too small."""

    def __init__(self, monkeypatch):
        self.masks = None
        self.shapes = []
        for name in ("_simulated", "_shown_on_screen", "_traced"):
            make = getattr(outline_evaluation, name)
            monkeypatch.setattr(outline_evaluation, name, lambda *args, make=make: self.remember(make(*args)))

    def remember(self, video):
        self.masks = np.zeros(video.frames.shape, dtype=bool)
        self.masks[video.numbers] = [binary_erosion(mask) for mask in video.masks]
        self.masks[video.end_systole] = False
        return video

    def predict_masks(self, frames, fps):
        masks, self.masks = self.masks, None
        self.shapes.append(frames.shape[1:])
        return np.zeros(frames.shape, dtype=bool) if masks is None else masks


@pytest.fixture
def oracle(monkeypatch):
    return Oracle(monkeypatch)


def test_dice_is_the_harmonic_mean_of_both_shares():
    first, second = np.zeros((2, 3, 4, 4), dtype=bool)
    first[:2, :2], second[:1, :1] = True, True
    assert dice(first, second).tolist() == [2 * 4 / (8 + 4), 0.0, 1.0]


def test_on_simulation_each_moment_is_measured_on_its_frame(oracle):
    found = evaluate_outlines_on_simulation(oracle, num_videos=3, num_others=1, progress=False)
    assert [result["num_videos"] for result in found["machines"].values()] == [3, 3, 1]
    for result in found["machines"].values():
        values = {name: value["mean"] for name, value in result["dice"].items()}
        assert values["end_systole"] == 0
        assert 0.85 < values["end_diastole"] < 1
        assert 0 < values["all_frames"] < values["end_diastole"]
        assert 0.9 < result["share_outlined"] < 1
        assert result["frames_per_second"] > 0 and result["frames_per_core_second"] > 0
    assert max(oracle.shapes)[0] > 400  # a screen
    assert set(found["other_recordings"].values()) == {1.0}
    assert len(found["other_recordings"]) == 8
    section = outline_section(found)
    assert outline_section(json.loads(json.dumps(found, sort_keys=True))) == section
    assert "| machines as in training" in section and "| a machine never seen" in section
    assert "| short axis" in section and "100.0%" in section


def test_the_stored_error_is_one_that_most_videos_do_not_exceed(monkeypatch):
    read, outliner = [], SimpleNamespace(config=SimpleNamespace(ef_error_quantile=None))

    def always_50(video, with_outliner):
        assert with_outliner is outliner
        read.append(video.source)
        return SimpleNamespace(ejection_fraction=50.0 if len(read) % 10 else np.nan)  # in some there is no beat

    monkeypatch.setattr(outline_evaluation, "outline_video", always_50)
    monkeypatch.setattr(SimulatedFrames, "read", lambda self, row: np.zeros((2, 8, 8), np.uint8))
    calibrate_outliner(outliner, num_videos=20, progress=False)
    rows = examination_videos(60, CALIBRATION_SEED_OFFSET)
    assert read == rows["file_name"]
    errors = [abs(50 - value) for number, value in enumerate(rows["ejection_fraction"], 1) if number % 10]
    assert outliner.config.ef_error_quantile == pytest.approx(np.quantile(errors, 0.9), abs=0.01)
    assert not set(read) & set(examination_videos(60, TEST_SEED_OFFSET)["file_name"])
    monkeypatch.setattr(outline_evaluation, "outline_video", lambda *_: SimpleNamespace(ejection_fraction=np.nan))
    with pytest.raises(ValueError, match="no beat in any"):
        calibrate_outliner(outliner, num_videos=1, progress=False)


def test_on_tracings_only_traced_frames_count(oracle, tmp_path):
    folder = write_synthetic_echonet(
        tmp_path / "data", 3, num_workers=0, progress=False, frames_range=(28, 40), image_size=112
    )
    found = evaluate_outlines_on_tracings(oracle, read_tracings(folder), progress=False)
    values = {name: value["mean"] for name, value in found["tracings"]["dice"].items()}
    assert values["end_systole"] == 0
    assert values["all_frames"] == pytest.approx(values["end_diastole"] / 2)
    assert found["tracings"]["share_outlined"] < 0.1
    # The oracle has no outline at end systole, so no ejection fraction.
    assert found["tracings"]["ejection_fraction"]["same_frames"]["num_videos"] == 0
    assert "| tracings" in outline_section(found)
    assert "| at the traced frames" in outline_section(found)
