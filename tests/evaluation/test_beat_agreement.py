import numpy as np
import pytest

from echomen_hf.evaluation.beat_agreement import BeatAgreement
from helpers.outlined_hearts import beating_masks


def test_exact_masks_agree():
    agreement, masks = BeatAgreement(), beating_masks(num_frames=160, period=40)
    agreement.add(masks, masks, 50.0)
    found = agreement.summary()
    assert (found["num_beats"], found["share_found"], found["invented_per_beat"]) == (4, 1, 0)
    assert found["end_diastole_within_60_ms"] == found["end_systole_within_60_ms"] == 1
    assert found["beat_ef_mae"] == found["video_ef_error_quantile"] == 0


def test_errors_are_those_of_the_masks():
    agreement = BeatAgreement()
    exact, late, weak = (beating_masks(num_frames=164, shrink=shrink) for shrink in (0.8, 0.8, 0.85))
    agreement.add(late[:160], exact[4:], 50.0)  # every moment 80 ms too late
    found = agreement.summary()
    assert found["end_systole_within_60_ms"] == 0
    assert found["beat_ef_mae"] < 1
    agreement = BeatAgreement()
    agreement.add(weak, exact, 50.0)
    # 1 - 0.85^3 instead of 1 - 0.8^3
    assert agreement.summary()["beat_ef_bias"] == pytest.approx(38.6 - 48.8, abs=1)
    assert agreement.summary()["video_ef_mae"] == pytest.approx(10.2, abs=1)


def test_missed_and_invented_beats_are_counted():
    agreement, masks = BeatAgreement(), beating_masks(num_frames=160, period=40)
    agreement.add(np.zeros_like(masks), masks, 50.0)
    agreement.add(beating_masks(num_frames=160, period=20), masks, 50.0)
    found = agreement.summary()
    assert found["num_beats"] == 8
    assert found["share_found"] < 0.6
    assert found["invented_per_beat"] > 0.4
    assert found["share_of_videos_with_beats"] == 0.5
    agreement.add(masks, np.zeros_like(masks), 50.0)  # nothing to compare with
    assert agreement.summary()["num_beats"] == 8
    assert np.isnan(BeatAgreement().summary()["beat_ef_mae"])
