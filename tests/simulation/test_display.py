import numpy as np
import pytest

from echomen_hf.simulation import DisplayParameters, MotionParameters, simulate_echo
from echomen_hf.simulation.display import acquired_frames, show_frames
from echomen_hf.simulation.motion import simulate_cardiac_motion


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return simulate_echo(1, num_frames=30).frames


def show(images: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    size = images.shape[1]
    return show_frames(
        images,
        DisplayParameters(**{"contour_mask": 0.0, **changes}),
        frames=np.arange(len(images)),
        motion=simulate_cardiac_motion(MotionParameters(), 30, 50.0, np.random.default_rng(0)),
        sector_mask=np.tri(size, dtype=bool),
        rng=np.random.default_rng(seed),
    )


def test_the_defaults_change_nothing(clip):
    assert np.array_equal(show(clip), clip)


@pytest.mark.parametrize("codec", ["jpeg", "mpeg4"])
def test_compression_keeps_the_picture_and_loses_more_at_lower_quality(clip, codec):
    errors = [np.abs(show(clip, codec=codec, quality=q).astype(float) - clip).mean() for q in (95.0, 60.0, 20.0)]
    assert 0 < errors[0] < errors[1] < errors[2] < 10


@pytest.mark.parametrize("codec", ["jpeg", "mpeg4"])
@pytest.mark.parametrize("size", [112, 100])
def test_a_compressed_clip_has_its_size_and_its_order(codec, size):
    images = np.zeros((20, size, size), dtype=np.uint8)
    for number, image in enumerate(images):
        image[:, :] = 12 * number
    shown = show(images, codec=codec, quality=90.0)
    assert shown.shape == images.shape
    assert shown.mean(axis=(1, 2)) == pytest.approx(12 * np.arange(20), abs=2)


def test_a_clip_of_more_frames_than_one_jpeg_holds_is_compressed_in_parts():
    images = np.full((700, 96, 96), 50, dtype=np.uint8)
    images[-1] = 200
    shown = show(images, codec="jpeg", quality=90.0)
    assert shown[:-1].mean() == pytest.approx(50, abs=1)
    assert shown[-1].mean() == pytest.approx(200, abs=1)


def test_smoothing_and_resizing_soften_and_sharpening_sharpens(clip):
    def contrast(**changes) -> float:
        return float(np.abs(np.diff(show(clip, **changes).astype(float), axis=2)).mean())

    plain = contrast()
    assert contrast(blur=0.8) < 0.9 * plain
    assert contrast(resampled_size=70.0) < 0.9 * plain
    assert contrast(sharpening=0.8) > 1.1 * plain


@pytest.mark.parametrize("changes", [{"blur": 0.8}, {"resampled_size": 75.0}, {"sharpening": 1.0}])
def test_filters_leave_an_even_picture_as_it_is(changes):
    images = np.full((2, 112, 112), 90, dtype=np.uint8)
    assert np.abs(show(images, **changes).astype(int) - 90).max() <= 1


def test_the_mask_blackens_everything_outside_the_sector():
    images = np.full((2, 64, 64), 90, dtype=np.uint8)
    shown = show(images, contour_mask=1.0)
    inside = np.tri(64, dtype=bool)
    assert (shown[:, inside] == 90).all()
    assert (shown[:, ~inside] == 0).all()


def test_the_electrocardiogram_moves_through_the_lowest_rows_and_ticks_stand_at_the_right_edge():
    images = np.zeros((30, 112, 112), dtype=np.uint8)
    trace = show(images, ecg=1.0)
    assert (trace.max(axis=1) > 0).all()  # one point in every column
    assert trace[:, :70].max() == 0
    assert not np.array_equal(trace[0], trace[-1])
    ticks = show(images, ticks=1.0)
    assert 8 <= np.count_nonzero(ticks[0]) <= 23
    assert ticks[:, :, :105].max() == 0


def test_frames_that_were_not_acquired_repeat_the_one_before():
    frames = np.arange(8)
    assert acquired_frames(frames, 1.5) is frames
    # at half the rate every frame is shown twice
    assert acquired_frames(frames, 0.5).tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    shown = acquired_frames(np.arange(300), 0.7)
    assert (shown <= np.arange(300)).all()
    assert (np.diff(shown) >= 0).all()
    assert len(np.unique(shown)) == pytest.approx(210, abs=1)
