import time

import numpy as np
import pytest
import torch

from echomen_hf.app.saliency import attribute_motion, motion_saliency
from echomen_hf.model.echo_video_echomen import EchoVideo


@pytest.fixture
def video(beating_frames):
    return EchoVideo(beating_frames, 50.0, "test")


def test_shape_and_range(tiny_model, tiny_processor, video):
    saliency = motion_saliency(tiny_model, tiny_processor, video)
    assert saliency.shape == (60, 32, 32)
    assert saliency.dtype == np.float32
    assert saliency.min() >= 0
    assert saliency.max() == 1


def test_what_moves_is_bright_and_what_is_still_is_dark(tiny_model, tiny_processor, video):
    saliency = motion_saliency(tiny_model, tiny_processor, video).mean(axis=0)
    moving, still = saliency[10:22, 2:14], saliency[10:22, 24:28]  # both are bright in the clip
    assert moving.mean() > 20 * still.mean()
    row, column = np.unravel_index(saliency.argmax(), saliency.shape)
    assert np.hypot(row - 15.5, column - 7.5) < 7


def test_frozen_picture_has_none(tiny_model, tiny_processor, beating_frames):
    still = EchoVideo(np.repeat(beating_frames[:1], 60, axis=0), 50.0, "test")
    assert not motion_saliency(tiny_model, tiny_processor, still).any()


def test_blank_frames_after_a_short_clip_are_no_motion(tiny_model, tiny_processor, beating_frames):
    still = EchoVideo(np.repeat(beating_frames[:1], 12, axis=0), 50.0, "test")  # 3 of the 8 frames of a clip
    assert not motion_saliency(tiny_model, tiny_processor, still).any()


def test_deterministic(tiny_model, tiny_processor, video):
    first, second = (motion_saliency(tiny_model, tiny_processor, video) for _ in range(2))
    assert np.array_equal(first, second)


def test_attribution_sums_to_the_effect_of_the_motion(tiny_model, tiny_processor, video):
    clip = tiny_processor.make_clips(video, [0])[0]
    for expert in tiny_model.experts:
        torch.nn.init.normal_(expert.weight, std=300, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        still = clip.mean(dim=0, keepdim=True).expand_as(clip)
        effect = torch.sub(*tiny_model(pixel_values=torch.stack([clip, still])).ejection_fraction).item()
    assert abs(effect) > 0.5
    total = attribute_motion(tiny_model, clip, len(clip), steps=64).sum()
    assert total == pytest.approx(effect, rel=0.02)


@pytest.mark.parametrize(("steps", "windows"), [(8, 32), (100, 2), (1000, 1)])
def test_windows_times_steps_are_bounded(tiny_model, tiny_processor, beating_frames, monkeypatch, steps, windows):
    seen = []

    def attribute(model, clip, length, steps):
        seen.append(steps)
        return np.ones((8, 32, 32), np.float32)

    monkeypatch.setattr("echomen_hf.app.saliency.attribute_motion", attribute)
    video = EchoVideo(np.tile(beating_frames, (4, 1, 1)), 1.0, "test")
    assert motion_saliency(tiny_model, tiny_processor, video, steps).shape == (240, 32, 32)
    assert seen == [steps] * windows


def test_saliency_ends_at_its_deadline(tiny_model, tiny_processor, video):
    with pytest.raises(TimeoutError):
        motion_saliency(tiny_model, tiny_processor, video, deadline=time.monotonic())


def test_outside_the_central_square_nothing_was_looked_at(tiny_model, tiny_processor, beating_frames):
    wide = np.pad(beating_frames, ((0, 0), (0, 0), (32, 32)))  # (60, 64, 128)
    saliency = motion_saliency(tiny_model, tiny_processor, EchoVideo(wide, 50.0, "test"))
    assert saliency.shape == (60, 32, 64)
    assert saliency[:, :, 16:48].any()
    assert not saliency[:, :, :16].any()
    assert not saliency[:, :, 48:].any()


@pytest.mark.parametrize("num_frames", [2, 29, 30])
def test_any_length(tiny_model, tiny_processor, beating_frames, num_frames):
    video = EchoVideo(beating_frames[:num_frames], 50.0, "test")
    assert motion_saliency(tiny_model, tiny_processor, video).shape == (num_frames, 32, 32)
