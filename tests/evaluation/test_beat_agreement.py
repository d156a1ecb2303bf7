import numpy as np
import pytest

from echomen_hf.evaluation.beat_agreement import BeatAgreement, TracedAgreement
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


def test_ejection_fraction_at_traced_frames_and_of_the_beats():
    agreement = TracedAgreement()
    exact, weak = (beating_masks(num_frames=160, period=40, shrink=shrink) for shrink in (0.8, 0.85))
    areas = exact.sum(axis=(1, 2))
    ends = [int(areas.argmax()), int(areas.argmin())]
    agreement.add(exact, exact[ends], ends, 50.0)
    agreement.add(weak, exact[ends], ends, 50.0)  # 1 - 0.85^3 instead of 1 - 0.8^3
    agreement.add(np.zeros_like(exact), exact[ends], ends, 50.0)  # no outline, no error
    found = agreement.summary()
    for way, rounding in (("same_frames", 0.5), ("beats", 2)):  # the curve of the beats is smooth
        assert found[way]["num_videos"] == 2
        assert found[way]["mae"] == pytest.approx(10.2 / 2, abs=rounding)
        assert found[way]["bias"] == pytest.approx(-10.2 / 2, abs=rounding)
    # A still picture has no beat.
    still = TracedAgreement()
    still.add(np.repeat(exact[ends[:1]], 60, axis=0), exact[ends], [0, 1], 50.0)
    assert still.summary()["same_frames"]["bias"] == pytest.approx(-48.8, abs=1)
    assert still.summary()["beats"]["num_videos"] == 0
    assert np.isnan(still.summary()["beats"]["mae"])
