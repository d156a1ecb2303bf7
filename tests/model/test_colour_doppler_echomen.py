import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw

from echomen_hf import EchoMENVideoProcessor, Predictor, read_video
from echomen_hf.model.colour_doppler_echomen import COLOURED_SHARE, chroma_of_rgb, coloured_cells, largest_share
from echomen_hf.model.echo_video_echomen import EchoVideo, cut_out_sector, warn_if_coloured
from echomen_hf.model.frame_arrays_echomen import to_echo_video
from echomen_hf.simulation import ExportSettings, export_clip, sample_export_settings, simulate_echo


RED, BLUE, GREEN = (150, 20, 10), (20, 40, 170), (0, 220, 60)


BEAT = [(0, 100), (14, 99), (17, 96), (20, 100), (22, 102), (24, 80), (26, 104), (28, 100), (36, 96), (40, 100)]


def larger(frames, scale):
    return frames.repeat(scale, axis=1).repeat(scale, axis=2)


@pytest.fixture(scope="module", params=[1, 3], ids=["112", "336"])
def scale(request):
    """How many times larger than in EchoNet-Dynamic the picture is."""
    return request.param


@pytest.fixture(scope="module")
def bmode(scale):
    """A synthetic apical view in gray, as RGB of shape (24, height, width, 3)."""
    frames = simulate_echo(0, 55.0, num_frames=48).frames[:24]
    return np.repeat(larger(frames, scale)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def annotated(bmode, scale):
    """The same with what a machine writes in colour: trace and cursor of the ECG, logo, marker, colour bar."""
    frames = bmode.copy()
    trace = [((x + 40 * beat) * scale, y * scale) for beat in range(3) for x, y in BEAT]
    for time, frame in enumerate(frames):
        image = Image.fromarray(frame)
        pen = ImageDraw.Draw(image)
        pen.line(trace, fill=GREEN, width=scale)
        cursor = 4 * time * scale
        pen.line([(cursor, 90 * scale), (cursor, 110 * scale)], fill=(255, 200, 0), width=scale)
        pen.rectangle([4 * scale, 4 * scale, 12 * scale - 1, 9 * scale - 1], fill=(70, 110, 230))
        pen.rectangle([54 * scale, 3 * scale, 58 * scale - 1, 8 * scale - 1], fill=(30, 200, 120))
        frame[:] = np.asarray(image)
        bar = np.linspace(RED, BLUE, 40 * scale)[:, None]
        frame[30 * scale : 70 * scale, 107 * scale : 110 * scale] = bar
    return frames


@pytest.fixture(scope="module")
def doppler(bmode, scale):
    """The same with flow through a valve, red towards the probe and blue away from it, for half of the time."""
    frames = bmode.copy()
    rows, columns = np.mgrid[:112, :112]
    jet = larger((((rows - 60) / 16) ** 2 + ((columns - 56) / 9) ** 2 < 1)[None], scale)[0]
    speckle = np.random.default_rng(1).uniform(0.6, 1.2, size=(24, 112, 112, 1))
    for time in range(8, 20):
        flow = np.clip(np.where((rows < 62)[..., None], RED, BLUE) * speckle[time], 0, 255).astype(np.uint8)
        frames[time][jet] = larger(flow[None], scale)[0][jet]
    return frames


ENCODINGS = {
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmin": "8", "qmax": "8"},
    "mjpeg-coarse": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "qmin": "31", "qmax": "31"},
    "mjpeg-422": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "mpeg4-coarse": {"codec": "mpeg4", "pix_fmt": "yuv420p", "qmin": "31", "qmax": "31"},
    "rgb": {"codec": "rawvideo", "pix_fmt": "bgr24"},
    "png": {"codec": "png", "pix_fmt": "rgb24"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
class TestFiles:
    def test_flow_is_seen(self, doppler, encoding, write_video, tmp_path):
        path = write_video(tmp_path / "flow.avi", doppler, source_format="rgb24", **ENCODINGS[encoding])
        video = read_video(path)
        # The ellipse covers 452 of 112 x 112 pixels, 3.6 %.
        assert video.coloured_share == pytest.approx(452 / 112**2, abs=0.006)
        with pytest.warns(UserWarning, match=r"flow.avi: [34]% of the picture is coloured, as in colour Doppler"):
            assert warn_if_coloured(video) is video
        # The frames that training asks for are looked at too.
        assert read_video(path, list(range(0, 24, 2))).is_coloured

    def test_trace_markers_and_logo_are_not_flow(self, annotated, encoding, write_video, tmp_path):
        path = write_video(tmp_path / "marked.avi", annotated, source_format="rgb24", **ENCODINGS[encoding])
        video = read_video(path)
        assert video.coloured_share < 0.6 * COLOURED_SHARE
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_if_coloured(video)

    def test_noise_of_compression_is_not_flow(self, bmode, encoding, write_video, tmp_path):
        noisy = bmode + np.random.default_rng(2).normal(0, 8, size=bmode.shape)
        frames = np.clip(noisy, 0, 255).astype(np.uint8)
        path = write_video(tmp_path / "noisy.avi", frames, source_format="rgb24", **ENCODINGS[encoding])
        assert read_video(path).coloured_share == 0


def test_a_gif_has_a_palette(doppler, annotated, write_video, tmp_path):
    shares = [
        read_video(
            write_video(tmp_path / f"{name}.gif", frames, codec="gif", pix_fmt="rgb8", source_format="rgb24")
        ).coloured_share
        for name, frames in (("flow", doppler), ("marked", annotated))
    ]
    assert shares[1] < COLOURED_SHARE < shares[0]


def test_gray_files_have_no_colour(bmode, write_video, tmp_path, echonet_dir):
    path = write_video(tmp_path / "gray.avi", bmode[..., 0], codec="ffv1", pix_fmt="gray")
    assert read_video(path).coloured_share == 0
    assert read_video(sorted((echonet_dir / "Videos").glob("*.avi"))[0]).coloured_share == 0


class TestScreens:
    """On a screen, the colour inside the fan that is cut out counts, and no other."""

    @pytest.mark.parametrize("fan_height", [0.35, 0.5])
    def test_flow_in_a_small_fan_is_seen(self, fan_height):
        settings = ExportSettings(fan_height=fan_height, second_panel="colour", second_size=1.0, ecg="none")
        screen = export_clip(simulate_echo(12, 58.0, num_frames=60).frames, 50.0, settings, in_colour=True).frames
        both = cut_out_sector(to_echo_video(screen, 50.0))
        screen[:, :, :512] = 0
        flow = cut_out_sector(to_echo_video(screen, 50.0))
        assert flow.sector.shape == both.sector.shape == "fan"
        assert flow.sector.box[0] > 512 > both.sector.box[2]  # of the two panels, the plain one is taken
        assert flow.coloured_share > 2 * COLOURED_SHARE
        assert not both.is_coloured

    def test_what_machines_write_in_colour_is_not_flow(self):
        frames = simulate_echo(12, 58.0, num_frames=12).frames
        for number in range(6):
            settings = sample_export_settings(np.random.default_rng([5, number]))
            screen = export_clip(frames, 50.0, settings, in_colour=True).frames
            video = cut_out_sector(to_echo_video(screen, 50.0))
            if settings.second_panel != "colour" and video.sector.shape == "fan":
                assert video.coloured_share < 0.6 * COLOURED_SHARE


class TestDicom:
    """The ultrasound images that come with pydicom are real."""

    @pytest.mark.parametrize("name", ["rgb_color", "jpeg2k"])
    def test_power_doppler_of_a_lymph_node(self, name):
        examples = pytest.importorskip("pydicom.examples")
        assert COLOURED_SHARE < read_video(examples.get_path(name)).coloured_share < 0.1

    def test_apical_view_with_a_coloured_marker(self):
        examples = pytest.importorskip("pydicom.examples")
        assert read_video(examples.get_path("ybr_color")).coloured_share == 0


def coloured_share(blue, red):
    return largest_share(coloured_cells(blue, red)[None])


class TestShare:
    def test_hand_worked(self):
        neutral, red = np.full((56, 112), 128, np.uint8), np.full((56, 112), 128, np.uint8)
        assert coloured_share(neutral, red) == 0
        red[0:6, 0:4] = 190  # cells are 2 x 2: this fills 3 x 2 of 28 x 56
        assert coloured_share(neutral, red) == 6 / 1568
        red[20:22] = 190  # a line of any length is one cell thick
        red[30:40, 50] = 190
        assert coloured_share(neutral, red) == 6 / 1568
        red[22:24] = 190  # a band of two cells
        assert coloured_share(neutral, red) == (6 + 112) / 1568
        assert coloured_share(red, neutral) == coloured_share(neutral, red)

    @pytest.mark.parametrize("shape", [(3, 3), (2, 40), (29, 200)])
    def test_any_size(self, shape):
        full = np.full(shape, 255, np.uint8)
        assert coloured_share(full, full) == 1

    def test_a_level_apart(self):
        neutral = np.full((56, 56), 128, np.uint8)
        assert coloured_share(neutral, neutral + 24) == coloured_share(neutral - 24, neutral) == 0
        assert coloured_share(neutral, neutral + 25) == coloured_share(neutral - 25, neutral) == 1

    def test_chroma_of_rgb(self):
        colours = np.array([[[0, 0, 0], [90, 90, 90], [255, 0, 0], [0, 0, 255], [255, 255, 0]]], np.uint8)
        blue, red = chroma_of_rgb(colours)
        assert blue.tolist() == [[128, 128, 85, 255, 0]]
        assert red.tolist() == [[128, 128, 255, 107, 149]]


class TestWhoWarns:
    def test_predictor(self, tiny_model, tiny_processor, doppler, write_video, tmp_path):
        path = write_video(tmp_path / "flow.avi", doppler, source_format="rgb24")
        with pytest.warns(UserWarning, match="colour Doppler; the model was trained on grayscale"):
            Predictor(tiny_model, tiny_processor)(path)

    def test_processor(self, doppler, annotated, write_video, tmp_path):
        processor = EchoMENVideoProcessor()
        path = write_video(tmp_path / "flow.avi", doppler, source_format="rgb24")
        for video in (path, doppler, np.moveaxis(doppler, -1, 1), doppler.astype(np.float32)):
            with pytest.warns(UserWarning, match="colour Doppler"):
                processor(video)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            processor(annotated)
            processor(EchoVideo(annotated[..., 0], 50.0, "gray"))
