import av
import numpy as np
import pytest
from PIL import Image

from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.sector_echomen import Sector
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.outline import Beat, VideoOutline, draw_volumes, outline_video, write_overlay
from echomen_hf.outline.overlay import draw_outlines, marked_frames
from helpers.outlined_hearts import KnownMasks, beating_masks


@pytest.fixture(scope="module")
def outline():
    masks = beating_masks(num_frames=90)
    frames = np.where(masks, 20, 120).astype(np.uint8)
    return outline_video(EchoVideo(frames, 50.0, "clip"), KnownMasks(masks))


def test_frames_around_both_ends_of_a_beat_are_marked():
    assert marked_frames([Beat(4, 20, 100, 50)], 50.0) == dict.fromkeys(range(1, 8), "ED") | dict.fromkeys(
        range(17, 24), "ES"
    )


def test_the_border_lies_on_the_edge_of_the_mask():
    mask = beating_masks(num_frames=1)[0]
    frame = np.full((112, 112), 100, np.uint8)
    (plain,) = draw_outlines([frame], [mask], {})
    coloured = np.ptp(plain.astype(int), axis=2) > 20
    assert plain.shape == (448, 448, 3)
    large = np.kron(mask, np.ones((4, 4), bool))
    rows, columns = np.nonzero(coloured)
    assert rows.min() == pytest.approx(np.nonzero(large)[0].min(), abs=4)
    assert rows.max() == pytest.approx(np.nonzero(large)[0].max(), abs=4)
    # Neither in the middle of the ventricle nor around it.
    assert not coloured[200:240, 200:240].any()
    assert not coloured[~np.pad(large, 6)[12:, 6:-6] & ~np.pad(large, 6)[:-12, 6:-6]][:1000].any()
    (empty,) = draw_outlines([frame], [np.zeros_like(mask)], {})
    assert (empty == 100).all()


def test_ends_of_a_beat_have_their_colours_and_names():
    mask, frame = beating_masks(num_frames=1)[0], np.full((112, 112), 100, np.uint8)
    pictures = list(draw_outlines([frame] * 3, [mask] * 3, {0: "ED", 1: "ES"}))
    named = [(np.ptp(picture[-50:, :80].astype(int), axis=2) > 20).any() for picture in pictures]
    assert named == [True, True, False]
    assert len({tuple(picture[:250].reshape(-1, 3).max(axis=0)) for picture in pictures}) == 3


@pytest.mark.parametrize(("name", "num_frames"), [("clip.mp4", 90), ("clip.GIF", 45)])
def test_videos(outline, tmp_path, name, num_frames):
    write_overlay(outline, tmp_path / name)
    video = read_video(tmp_path / name)
    assert video.frames.shape == (num_frames, 448, 448)
    assert video.fps == pytest.approx(50 * num_frames / 90, rel=0.01)
    with av.open(str(tmp_path / name)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert 0.002 < (np.ptp(picture.astype(int), axis=2) > 40).mean() < 0.05  # the border is thin


def test_another_ending_is_refused(outline, tmp_path):
    with pytest.raises(ValueError, match=r"clip.avi must end in .mp4 or .gif"):
        write_overlay(outline, tmp_path / "clip.avi")


def test_only_the_fan_of_a_screen_is_shown(tmp_path):
    """Text around the fan may be a patient's name."""
    masks = np.zeros((60, 300, 400), bool)
    masks[:, 80:192, 120:232] = beating_masks(num_frames=60)
    frames = np.full(masks.shape, 60, np.uint8)
    frames[:, :30] = 255
    sector = Sector((100, 60, 260, 220), "fan", 1.0, (100, 60, 160), (180.0, 60.0), 0.8, 160.0)
    outline = VideoOutline(EchoVideo(frames, 50.0, "clip"), sector, masks, np.full(60, 1.0), "mL", ())
    write_overlay(outline, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (448, 448, 3)
    assert picture.max() < 250
    assert (np.ptp(picture.astype(int), axis=2) > 60).any()


@pytest.mark.parametrize("shape", ["cropped", "none"])
def test_a_banner_is_not_shown_where_no_fan_was_cut_out(tmp_path, shape):
    masks = np.zeros((30, 300, 300), bool)
    masks[:, 80:192, 94:206] = beating_masks(num_frames=30)
    frames = np.full(masks.shape, 60, np.uint8)
    frames[:, :30, :100] = 255
    whole = {"shape": shape, "square": (0, 0, 300), "apex": (150.0, 10.0), "half_angle": 0.7, "radius": 280.0}
    sector = Sector((0, 0, 300, 300), **whole)
    write_overlay(VideoOutline(EchoVideo(frames, 50.0, "x"), sector, masks, np.ones(30), "mL", ()), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture[:40, :130].max() < 40
    assert (np.ptp(picture.astype(int), axis=2) > 60).any()  # the border
    assert (picture[200, 200:248].mean() > 40) == (shape == "cropped")


def test_volume_curve(outline, tmp_path):
    figure = draw_volumes(outline)
    (panel,) = figure.axes
    curve, diastoles, systoles = panel.lines
    np.testing.assert_array_equal(curve.get_ydata(), outline.volumes)
    np.testing.assert_allclose(diastoles.get_xdata(), [beat.ed_frame / 50 for beat in outline.beats])
    np.testing.assert_allclose(systoles.get_ydata(), [beat.esv for beat in outline.beats])
    assert panel.get_ylabel() == "volume (1000 pixels³)"
    assert [text.get_text() for text in panel.texts] == [f"{beat.ejection_fraction:.0f} %" for beat in outline.beats]
    figure.savefig(tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size[0] == 700


def test_volume_curve_without_a_ventricle():
    masks = np.zeros((20, 64, 64), bool)
    outline = outline_video(EchoVideo(np.zeros(masks.shape, np.uint8), 50.0, "clip"), KnownMasks(masks))
    figure = draw_volumes(outline)
    assert any("No left ventricle was found." in text.get_text() for text in figure.texts)
