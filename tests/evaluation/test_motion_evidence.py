"""Changes of a clip that leave its ejection fraction as it is, and one that does not."""

import numpy as np
import pytest

from echomen_hf.evaluation.motion_evidence import (
    INVARIANCES,
    half_frame_rate,
    motion_evidence,
    scaled_brightness,
    still,
)
from echomen_hf.model.echo_video_echomen import EchoVideo


@pytest.fixture
def beat():
    frames = np.zeros((41, 24, 24), np.uint8)
    for number in range(41):
        width = round(9 + 5 * np.cos(number / 40 * 4 * np.pi))
        frames[number, 8:16, 2 : 2 + width] = 120
    return EchoVideo(frames, 50.0, "beat.avi")


def area_change(video):
    areas = (video.frames > 0).sum(axis=(1, 2))
    return 100.0 * (areas.max() - areas.min()) / areas.max()


def test_a_measure_of_motion_is_invariant_and_sees_a_still_clip(beat):
    found = motion_evidence(area_change, [beat, still(beat)])
    assert found.keys() == {"unchanged", "still", *INVARIANCES}
    assert found["unchanged"][0] == pytest.approx(100 * 10 / 14) and found["still"][0] == 0
    for name in INVARIANCES:
        assert found[name] == pytest.approx(found["unchanged"]), name


def test_changes_are_what_they_say(beat):
    half = half_frame_rate(beat)
    assert (half.num_frames, half.fps) == (21, 25.0)
    assert half.duration_seconds == pytest.approx(beat.duration_seconds, abs=0.05)
    assert scaled_brightness(0.6)(beat).frames.max() == 72
    assert scaled_brightness(2.5)(beat).frames.max() == 255
    assert (INVARIANCES["mirrored"](beat).frames[:, :, 0] == beat.frames[:, :, -1]).all()
    assert (INVARIANCES["backwards"](beat).frames[0] == beat.frames[-1]).all()
