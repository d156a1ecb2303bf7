import dataclasses
import json
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.quality import (
    COLOUR_SCREEN,
    QUALITIES,
    SEED_OFFSET,
    STILL_SCREEN,
    TwoReadings,
    count,
    good_videos,
    other_recordings,
    pydicom_images,
    quality_table,
    readings_table,
    screens,
    two_readings,
)
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.evaluation.simulation_examination import PROFILE_TITLES, examination_videos
from echomen_hf.inference import load_checkpoint
from echomen_hf.inference.video_prediction import VideoPrediction
from echomen_hf.model.video_source_echomen import VideoReadError


def prediction(quality, *reasons):
    values = np.array([55.0])
    return VideoPrediction("a.avi", 55.0, 55.0, values, values, values, quality=quality, reasons=reasons)


def test_qualities_are_shares_and_reasons_are_counted_without_their_numbers():
    far = [f"{times} times as far from them as usual ones." for times in (1.4, 12)]
    measured = count(
        "noise",
        [
            prediction("doubtful", far[0]),
            prediction("unusable", far[1], "Hardly anything moves."),
            prediction("good"),
            VideoReadError("a.dcm has one frame"),
        ],
    )
    assert measured.num_videos == 4
    assert json.loads(json.dumps(vars(measured)))["qualities"] == dict.fromkeys(QUALITIES, 1)
    assert measured.reasons == {"N times as far from them as usual ones.": 2, "Hardly anything moves.": 1}
    lines = quality_table([measured]).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "noise",
        "4",
        *["25.0%"] * 4,
        "2 × N times as far from them as usual ones; 1 × Hardly anything moves",
    ]


def reading(ejection_fraction, disagree, outline=50.0):
    """Estimate of a video that has two readings, or one where the outline has none."""
    reasons = ("Two readings disagree: 20 % by the estimate.",) if disagree else ("Another reason.",)
    values = np.array([ejection_fraction])
    of_outline = SimpleNamespace(ejection_fraction=outline)
    return VideoPrediction(
        "a.avi", ejection_fraction, 0.0, values, values, values, (0.0, 99.0), reasons=reasons, outline=of_outline
    )


def test_large_errors_are_counted_where_readings_disagree_and_where_they_agree():
    flagged = [reading(50.0 + error, True) for error in (-10.1, 12.0, 9.9, 0.0)]
    flagged[3] = reading(50.0, True, outline=61.0)
    others = [reading(50.0 + error, False) for error in (-30.0, *[10.0] * 7)]
    single = [reading(90.0, False, outline=np.nan)]
    found = two_readings("hearts", [*flagged, *others, *single], [50.0] * 13)
    assert found == TwoReadings(
        "hearts",
        disagreeing=4,
        wrong_disagreeing=3,
        misread_disagreeing=2,
        agreeing=8,
        wrong_agreeing=1,
        misread_agreeing=1,
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in readings_table([found]).splitlines()]
    assert lines[2] == ["hearts", "4 of 12", "75.0%, 12.5%", "6.0", "50.0%, 12.5%"]
    assert lines[3] == ["all", "4 of 12", "75.0%, 12.5%", "6.0", "50.0%, 12.5%"]


def test_images_without_motion_are_refused():
    measured = count("images", pydicom_images(SMALL_MODEL_FOLDER))
    assert measured.qualities["refused"] >= 3
    assert measured.qualities["good"] == 0


def test_a_heart_is_good_and_a_still_picture_or_noise_is_unusable():
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    few = Namespace(num_videos=1, num_others=1, seed=0, outline=False)
    assert count("hearts", good_videos(model, processor, "wide", few)).qualities == {"good": 1}
    for kind in ("still", "noise"):
        assert count(kind, other_recordings(model, processor, kind, few)).qualities == {"unusable": 1}, kind


def test_a_screen_with_a_still_fan_or_one_in_colour_is_not_good():
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    few = Namespace(num_others=1, seed=3, outline=False)
    assert count("still", screens(model, processor, STILL_SCREEN, few)).qualities == {"unusable": 1}
    coloured = count("colour", screens(model, processor, COLOUR_SCREEN, few))
    assert coloured.qualities["good"] == 0
    assert any("as in colour Doppler" in reason for reason in coloured.reasons)


def test_another_view_is_doubtful_by_its_outline():
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    few = Namespace(num_videos=2, num_others=2, seed=0, outline=True)
    assert count("hearts", good_videos(model, processor, "wide", few)).qualities == {"good": 2}
    for kind in ("short_axis", "long_axis", "lung"):
        assert count(kind, other_recordings(model, processor, kind, few)).qualities == {"doubtful": 2}, kind


@pytest.mark.slow
def test_large_errors_are_three_times_as_frequent_where_readings_disagree():
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    hearts = Namespace(num_videos=80, seed=0, outline=True)
    truths = examination_videos(80, SEED_OFFSET)["ejection_fraction"]
    found = [
        two_readings(profile, good_videos(model, processor, profile, hearts), truths) for profile in PROFILE_TITLES
    ]
    disagreeing, wrong, _, agreeing, others, _ = np.sum([dataclasses.astuple(one)[1:] for one in found], axis=0)
    assert disagreeing > 0
    assert wrong / disagreeing >= 3 * others / agreeing
