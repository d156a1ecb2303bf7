import gzip
import io
import tracemalloc

import numpy as np
import pytest

from echomen_hf import Predictor, VideoReadError, probe_video, read_video
from echomen_hf.data import read_data_set
from echomen_hf.data.layouts.echonet_dynamic import read_volume_tracings
from echomen_hf.inference import list_files, predict_video
from echomen_hf.inference.predictor import find_videos
from echomen_hf.model import nifti_reading_echomen as nifti
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.gray_conversion_echomen import square_pixels
from echomen_hf.model.nifti_reading_echomen import is_nifti, read_cfg
from helpers.data_sets import known_frames, nifti_bytes, write_nifti


@pytest.fixture(params=["clip.nii", "clip.nii.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.mark.parametrize("order", "<>")
def test_frames_come_out_upright_and_in_order(path, order):
    frames = known_frames()
    write_nifti(path, frames, time_step=0.02, units=2 + 8, order=order)
    video = read_video(path)
    np.testing.assert_array_equal(video.frames, frames)
    assert video.fps == pytest.approx(50)
    info = probe_video(path)
    assert (info.num_frames, info.height, info.width, info.fps) == (*frames.shape, video.fps)


def test_any_source_gives_the_same(path):
    write_nifti(path, known_frames(), time_step=20, units=2 + 16)
    data = path.read_bytes()
    for source in (
        str(path),
        data,
        io.BytesIO(data),
        {"path": str(path), "bytes": None},
        {"path": "a", "bytes": data},
    ):
        assert is_nifti(source)
        np.testing.assert_array_equal(read_video(source).frames, known_frames())
        assert read_video(source, [4, 0, 4]).frames[:, 0, 0].tolist() == [232, 200, 232]


def test_pixels_become_square(path):
    frames = known_frames(3, 40, 16)
    write_nifti(path, frames, (0.308, 0.154), time_step=0.02, units=10)
    video = read_video(path)
    assert video.frames.shape == (3, 40, 32)
    np.testing.assert_array_equal(video.frames, [square_pixels(frame, 2.0) for frame in frames])
    assert (probe_video(path).height, probe_video(path).width) == (40, 32)
    assert video.mm_per_pixel == pytest.approx(0.154)


@pytest.mark.parametrize(("units", "side", "expected"), [(0, 0.3, None), (1, 3e-4, 0.3), (2, 0.3, 0.3), (3, 300, 0.3)])
def test_pixels_have_the_size_that_the_header_states(path, units, side, expected):
    write_nifti(path, known_frames(), (side, side), time_step=0.02, units=units + 8)
    assert read_video(path).mm_per_pixel == (expected and pytest.approx(expected))


def test_commands_take_it(tmp_path):
    path = write_nifti(tmp_path / "study" / "clip.nii.gz", known_frames(70), time_step=0.02, units=10)
    assert find_videos([tmp_path]) == [path]
    assert [file.name for file in list_files([tmp_path])] == ["study/clip.nii.gz"]
    predictor = Predictor(protocol="center", force=True)
    by_frames = predict_video(
        predictor.model, predictor.processor, EchoVideo(known_frames(70), 50.0, "frames"), "center"
    )
    with pytest.warns(UserWarning, match="Neither an ultrasound fan"):
        assert predictor(path).ejection_fraction == pytest.approx(by_frames.ejection_fraction, abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [{}, {"time_step": 1.0, "units": 10}, {"time_step": 0.02, "units": 2}, {"time_step": 0.02, "units": 2 + 32}],
    ids=["no time axis", "default step", "no unit", "hertz"],
)
def test_a_rate_that_is_not_stated_is_assumed_with_a_warning(path, options):
    write_nifti(path, known_frames(), **options)
    with pytest.warns(UserWarning, match="states no frame rate; assuming 50"):
        assert read_video(path).fps == 50
    with pytest.raises(VideoReadError, match="states no frame rate"):
        probe_video(path, default_fps=None)


class TestHalfBeat:
    @pytest.fixture
    def beat(self, tmp_path):
        (tmp_path / "Info_4CH.cfg").write_text("ED: 1\nES: 4\nFrameRate: 48.4\n")
        return write_nifti(tmp_path / "patient0001_4CH_half_sequence.nii.gz", known_frames(4), (0.3, 0.3))

    def test_it_is_played_back(self, beat):
        video = read_video(beat)
        # Eleven beats of 6 frames at 48.4 per second are the first to last 1.3 s.
        np.testing.assert_array_equal(video.frames, known_frames(4)[[*[0, 1, 2, 3, 2, 1] * 11, 0]])
        np.testing.assert_array_equal(read_video(beat, [6, 3, 4]).frames, known_frames(4)[[0, 3, 2]])
        assert video.fps == probe_video(beat).fps == 48.4
        assert probe_video(beat).num_frames == 67

    @pytest.mark.parametrize(("stored", "expected"), [(40, 79), (32, 63), (31, 121), (1, 1)])
    def test_it_is_played_back_as_often_as_a_clip_needs(self, beat, stored, expected):
        write_nifti(beat, known_frames(stored, 8, 8))
        assert probe_video(beat).num_frames == read_video(beat).num_frames == expected

    def test_masks_and_other_sequences_are_not(self, beat):
        for name in ("patient0001_4CH_half_sequence_gt.nii.gz", "patient0001_4CH.nii.gz"):
            other = beat.rename(beat.with_name(name))
            with pytest.warns(UserWarning, match="states no frame rate"):
                assert read_video(other).num_frames == 4
            other.rename(beat)

    @pytest.mark.parametrize("text", ["", "FrameRate: fast", "Frame"])
    def test_without_a_rate_in_its_cfg(self, beat, text):
        (beat.parent / "Info_4CH.cfg").write_text(text)
        with pytest.warns(UserWarning, match="states no frame rate"):
            read_video(beat)

    def test_cfg(self, tmp_path):
        (tmp_path / "a.cfg").write_text("ED: 1\r\n\r\nSex: F\nImageQuality:Good\nnonsense\nTime: 10:20\n")
        expected = {"ED": "1", "Sex": "F", "ImageQuality": "Good", "Time": "10:20"}
        assert read_cfg(tmp_path / "a.cfg") == expected


class TestLevels:
    def test_scaling_and_types(self, path):
        frames = known_frames()
        for stored, options in (
            (frames.astype("i2"), {}),
            (frames.astype("f4"), {}),
            ((frames.astype("i2") - 100) * 2, {"scaling": (0.5, 100.0)}),
            (frames.astype("f4") / 255, {"display": (0.0, 1.0)}),
            (frames.astype("i2") * 16, {"display": (0.0, 255 * 16)}),
        ):
            write_nifti(path, stored, time_step=0.02, units=10, **options)
            np.testing.assert_array_equal(read_video(path).frames, frames)

    @pytest.mark.parametrize(
        ("stored", "message"),
        [
            (known_frames().astype("i2") * 16, r"values from \d+ to 3\d+ and states no display range"),
            (known_frames().astype("i2") - 200, "states no display range"),
            (known_frames().astype("f4") / known_frames().max(), "from 0 to 1 and states no display range"),
            (np.full((2, 8, 8), np.nan, "f4"), "values from nan to nan"),
        ],
    )
    def test_levels_without_a_scale_are_refused(self, path, stored, message):
        write_nifti(path, stored, time_step=0.02, units=10)
        with pytest.raises(VideoReadError, match=message):
            read_video(path)


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"dim": [4, 32, 24, 2, 3, 1, 1, 1]}, "array of 32 x 24 x 2 x 3 values"),
            ({"dim": [3, -32, 24, 6, 1, 1, 1, 1]}, "array of -32 x 24 x 6"),
            ({"dim": [3, 32, 24, 0, 1, 1, 1, 1]}, "array of 32 x 24 x 0"),
            ({"dim": [0, 32, 24, 6, 1, 1, 1, 1]}, "array of 0 values"),
            ({"dim": [2, 20000, 20000, 1, 1, 1, 1, 1]}, "frames of 20000 x 20000 pixels"),
            ({"dim": [3, 4000, 1000, 2, 1, 1, 1, 1], "pixdim": [1, 3, 1, 1, 0, 0, 0, 0]}, "frames of 12000 x 1000"),
            ({"vox_offset": [float("nan")]}, r"pixels at byte nan|not a readable NIfTI"),
            ({"vox_offset": [3e9]}, r"pixels at byte 3e\+09"),
            ({"vox_offset": [10.0]}, "pixels at byte 10|not a readable NIfTI"),
            ({"datatype": [128], "bitpix": [24]}, "no grey levels"),
            ({"datatype": [32], "bitpix": [64]}, "no grey levels"),
            ({"datatype": [77]}, "not a readable NIfTI file"),
            ({"sizeof_hdr": [5]}, "not a readable NIfTI file"),
        ],
    )
    def test_hostile_headers(self, path, fields, message):
        write_nifti(path, known_frames(), **fields)
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match=f"clip.*{message}"):
                read(path)

    @pytest.mark.parametrize(
        "content",
        [b"", b"text" * 200, gzip.compress(b"text" * 200), gzip.compress(b"")[:12]],
        ids=["empty", "text", "compressed text", "cut off"],  # the bytes hold the time of day
    )
    def test_other_content(self, path, content):
        path.write_bytes(content or b"x")
        with pytest.raises(VideoReadError, match="clip.*not a readable NIfTI file"):
            read_video(path)

    def test_other_compressed_files_are_no_nifti(self, tmp_path):
        (tmp_path / "a.gz").write_bytes(gzip.compress(b"text" * 200))
        assert not is_nifti(tmp_path / "a.gz")
        (tmp_path / "b.gz").write_bytes(b"\x1f\x8btext")
        assert not is_nifti(tmp_path / "b.gz")

    def test_a_file_that_was_cut_off(self, path):
        write_nifti(path, np.random.default_rng(0).integers(0, 255, (10, 24, 32), np.uint8), time_step=0.02, units=10)
        whole = read_video(path).frames
        path.write_bytes(path.read_bytes()[:5000])
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match="only . frames of the 10 .*the data end early"):
                read(path)
        with pytest.warns(UserWarning, match="using what is there"):
            left = read_video(path, allow_truncated=True).frames
        assert 3 <= len(left) < 10
        np.testing.assert_array_equal(left, whole[: len(left)])
        np.testing.assert_array_equal(read_video(path, [2, 0]).frames, whole[[2, 0]])

    def test_bombs_are_refused_before_they_are_inflated(self, tmp_path):
        bomb = tmp_path / "bomb.nii.gz"
        bomb.write_bytes(gzip.compress(nifti_bytes(known_frames(), dim=[3, 2048, 2048, 30000, 1, 1, 1, 1])))
        tracemalloc.start()
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match="holds more than 2147483648 bytes of frames"):
                read(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()

    def test_more_than_max_bytes(self, path):
        write_nifti(path, known_frames(), time_step=0.02, units=10)
        assert read_video(path, max_bytes=6 * 24 * 32).num_frames == 6
        with pytest.raises(VideoReadError, match="holds more than 4000 bytes"):
            read_video(path, max_bytes=4000)
        assert read_video(path, [5], max_bytes=4000).num_frames == 1

    def test_frames_that_do_not_exist(self, path):
        write_nifti(path, known_frames(), time_step=0.02, units=10)
        with pytest.raises(VideoReadError, match="has 6 frames, but frame 6"):
            read_video(path, [6])

    def test_without_nibabel(self, path, monkeypatch):
        write_nifti(path, known_frames())
        monkeypatch.setattr(nifti, "Nifti1Header", None)
        with pytest.raises(VideoReadError, match=r'nibabel is not installed; install it with pip install "echomen-hf'):
            read_video(path)


def test_half_beats_show_the_ejection_fraction(echonet_dir, tmp_path):
    tracings, predictor = read_volume_tracings(echonet_dir), Predictor(protocol="center")
    predictor.processor.short_videos = "zeros"
    errors = []
    for row in read_data_set(echonet_dir).rows[:8]:
        video, traced = read_video(row["video"]), tracings[row["file_name"]]
        half = video.frames[traced.end_diastolic_frame : traced.end_systolic_frame + 1]
        (tmp_path / "Info_4CH.cfg").write_text(f"FrameRate: {video.fps}\n")
        path = write_nifti(tmp_path / "patient0001_4CH_half_sequence.nii.gz", half)
        estimates = [
            predict_video(predictor.model, predictor.processor, clip).ejection_fraction
            for clip in (read_video(path), EchoVideo(half, video.fps, "half"))
        ]
        errors.append(np.abs(np.subtract(estimates, row["ejection_fraction"])))
    played_back, filled_with_blank_frames = np.mean(errors, axis=0)
    assert played_back < 5 < 15 < filled_with_blank_frames
