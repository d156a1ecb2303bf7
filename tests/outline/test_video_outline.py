import numpy as np
import pytest

from echomen_hf import VideoReadError
from echomen_hf.model.echo_video_echomen import EchoVideo, cut_out_sector
from echomen_hf.model.sector_echomen import Sector
from echomen_hf.outline.video_outline import VideoOutline, outline_video
from helpers.outlined_hearts import KnownMasks, beating_masks


def video_of(masks, fps=50.0, **changes):
    frames = np.where(masks, 20, 120).astype(np.uint8)
    return EchoVideo(frames, fps, "clip", **changes)


def outline_of(masks, ef_error=None, **changes):
    return outline_video(video_of(masks, **changes), KnownMasks(masks, ef_error))


def test_beats_and_ejection_fraction():
    masks = beating_masks(num_frames=160, period=40, shrink=0.8)
    outline = outline_of(masks)
    assert outline.masks.dtype == bool
    np.testing.assert_array_equal(outline.masks, masks)
    assert outline.volumes.shape == (160,)
    assert outline.unit == "1000 px^3"
    # All lengths shrink to 80 %, so the volume to 51.2 %.
    assert outline.ejection_fraction == pytest.approx(48.8, abs=2)
    assert [beat.es_frame for beat in outline.beats] == pytest.approx([20, 60, 100, 140], abs=2)
    assert outline.heart_rate == pytest.approx(75, rel=0.03)
    assert outline.beat_sd < 2
    assert outline.reasons == ()
    assert outline.interval is None


def test_millilitres_and_the_measured_error():
    masks = beating_masks()
    relative, outline = outline_of(masks), outline_of(masks, ef_error=70.0, mm_per_pixel=1.5)
    assert outline.unit == "mL"
    np.testing.assert_allclose(outline.volumes, 1.5**3 * relative.volumes)
    assert outline.ejection_fraction == pytest.approx(relative.ejection_fraction)
    assert outline.interval == (0.0, 100.0)
    low, high = outline_of(masks, ef_error=5.0).interval
    assert (low + high) / 2 == pytest.approx(outline.ejection_fraction)
    assert high - low == pytest.approx(10)


def test_any_source(tmp_path, write_video):
    masks = beating_masks(size=64)
    path = write_video(tmp_path / "clip.mkv", video_of(masks).frames, codec="ffv1", pix_fmt="gray")
    expected = outline_of(masks)
    for source in (str(path), path, path.read_bytes()):
        assert outline_video(source, KnownMasks(masks)).beats == expected.beats


def test_a_still_image_is_refused():
    with pytest.raises(VideoReadError, match="has one frame; EF needs at least 2"):
        outline_of(beating_masks(num_frames=1))


def cut_at_the_border(masks):
    return np.roll(masks, masks.shape[2] // 2, axis=2)


def in_some_frames(masks):
    masks[50:90] = False
    return masks


def one_beat(masks):
    return masks[35:70]


def short(masks):
    return masks[5:30]


def standing(masks):
    return np.repeat(masks[:1], len(masks), axis=0)


def disc(masks):
    rows, columns = np.mgrid[: masks.shape[1], : masks.shape[2]] - masks.shape[1] / 2
    radius = 20 + 4 * np.cos(2 * np.pi * np.arange(len(masks)) / 40)
    return np.hypot(rows, columns) < radius[:, None, None]


@pytest.mark.parametrize(
    ("change", "reason", "num_beats"),
    [
        (np.zeros_like, "No left ventricle was found.", 0),
        (in_some_frames, "In 25% of the frames no left ventricle was found.", 2),
        (cut_at_the_border, "The outline touches the border of the picture in 100% of its frames", None),
        (one_beat, "There is only one whole beat, so nothing is known of how beats differ.", 1),
        (short, "No whole beat was found in 0.5 s", 0),
        (standing, "The volume changes by 0% only, so no beat can be told.", 0),
        (disc, "this may be another view", 4),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_wrong_is_said(change, reason, num_beats):
    outline = outline_of(change(beating_masks(num_frames=160, period=40)))
    assert any(reason in sentence for sentence in outline.reasons)
    if num_beats is not None:
        assert len(outline.beats) == num_beats
    assert np.isnan(outline.ejection_fraction) == (not outline.beats)


@pytest.mark.parametrize(
    ("volumes", "both"),
    [
        ([5, 4, 3, 2, 1, 2, 4, 6, 8, 9, 8, 6, 4], True),
        ([9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1], False),  # ends where it is smallest
        ([7, 8, 9, 8, 7, 6, 5, 4, 3, 2, 2, 2, 1], False),
        ([np.nan] * 13, False),
        ([np.nan, np.nan, 5, 4, 3, 4, 6, 7, 6, 5, 4, np.nan, np.nan], True),
    ],
)
def test_both_ends_of_a_beat_lie_inside_or_not(volumes, both):
    video = video_of(np.zeros((13, 40, 40), bool))
    outline = VideoOutline(video, Sector((0, 0, 40, 40)), video.frames > 0, np.array(volumes, float), "mL", ())
    assert outline.has_both_ends is both


def test_beats_that_disagree():
    masks = np.concatenate(
        [beating_masks(num_frames=40, period=40, shrink=shrink) for shrink in (0.75, 0.9, 0.75, 0.9)]
    )
    outline = outline_of(masks)
    assert len(outline.beats) == 4
    assert outline.reasons == ("The beats disagree, by 19 EF points.",)


def test_a_restless_outline():
    masks = beating_masks(num_frames=120)
    large = beating_masks(num_frames=120, size=124)[:, 6:-6, 6:-6]
    masks[::2] = large[::2]
    assert "The outline jumps from frame to frame." in outline_of(masks).reasons


def test_the_fan_that_is_known_is_not_looked_for_again(monkeypatch):
    masks = beating_masks()
    video = cut_out_sector(video_of(masks))
    seen = []

    class Outliner(KnownMasks):
        def predict_masks(self, frames, fps, *, sector=None):
            seen.append(sector)
            return super().predict_masks(frames, fps)

    monkeypatch.setattr("echomen_hf.outline.video_outline.with_fan", lambda video: pytest.fail("looked for"))
    assert outline_video(video, Outliner(masks)).beats
    assert seen[0].box == (0, 0, 112, 112)
    assert seen[0].shape != "fan"
