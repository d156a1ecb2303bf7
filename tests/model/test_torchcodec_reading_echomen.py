from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from echomen_hf.model import video_reading_echomen as video_reader
from echomen_hf.model.torchcodec_reading_echomen import load_torchcodec
from echomen_hf.model.video_reading_echomen import VideoReadError, read_video
from helpers.video_files import beating_texture


Writer = Callable[..., Path]
Ramp = Callable[..., NDArray[np.uint8]]


FORMATS = [
    pytest.param("clip.avi", "mjpeg", "yuvj420p", id="mjpeg"),
    pytest.param("clip.avi", "mpeg4", "yuv420p", id="mpeg4"),
]


@pytest.fixture
def without_pyav_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only torchcodec decodes: a test that passes was not served by PyAV in its place."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("PyAV was asked to decode")

    monkeypatch.setattr(video_reader, "decode_container", refuse)


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
class TestGrayClips:
    @pytest.fixture
    def path(self, tmp_path: Path, write_video: Writer, name: str, codec: str, pix_fmt: str) -> Path:
        return write_video(tmp_path / name, beating_texture(40), codec=codec, pix_fmt=pix_fmt)

    def test_differ_by_one_grey_level_from_pyav(self, path: Path, request: pytest.FixtureRequest) -> None:
        expected = read_video(path)
        request.getfixturevalue("without_pyav_decoding")
        video = read_video(path, decoder="torchcodec")
        assert video.frames.dtype == np.uint8
        assert (video.fps, video.source, video.coloured_share) == (expected.fps, expected.source, 0)
        assert np.abs(video.frames.astype(int) - expected.frames).max() <= 1  # shapes must agree for this, too
        assert np.abs(np.diff(expected.frames.astype(int), axis=0)).mean() > 10  # a frame off would be seen

    def test_wanted_frames_are_those_of_the_whole_clip(self, path: Path, without_pyav_decoding: None) -> None:
        whole = read_video(path, decoder="torchcodec").frames
        for indices in ([7, 0, 21, 21, 3], [39], list(range(1, 40))):  # the last goes through more than one chunk
            np.testing.assert_array_equal(read_video(path, indices, decoder="torchcodec").frames, whole[indices])

    def test_bytes_and_open_files_are_read_like_paths(self, path: Path, without_pyav_decoding: None) -> None:
        expected, data = read_video(path, [3, 30], decoder="torchcodec").frames, path.read_bytes()
        for source in (data, io.BytesIO(data), {"path": None, "bytes": data}):
            np.testing.assert_array_equal(read_video(source, [3, 30], decoder="torchcodec").frames, expected)

    def test_frames_that_do_not_exist_are_refused(self, path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"clip\.avi: has 40 frames, but frame 40 was asked for"):
            read_video(path, [0, 40], decoder="torchcodec")
        with pytest.raises(ValueError, match="frame numbers from 0 on"):
            read_video(path, [3, -1], decoder="torchcodec")

    def test_too_large_a_clip_is_refused(self, path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"clip\.avi: holds more than 9999 bytes"):
            read_video(path, decoder="torchcodec", max_bytes=9999)

    def test_absurd_frame_rate_is_replaced_with_one_warning(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(video_reader, "_stream_fps", lambda stream: None)
        with pytest.warns(UserWarning, match="states no frame rate; assuming 50") as warned:
            assert read_video(path, decoder="torchcodec").fps == 50
        assert len(warned) == 1


@pytest.mark.usefixtures("needs_torchcodec")
class TestWhatIsLeftToPyAV:
    def test_colour(self, tmp_path: Path, write_video: Writer) -> None:
        frames = np.repeat(beating_texture(6)[..., None], 3, axis=-1)  # (6, 48, 64, 3)
        frames[3:, 10:40, 10:40] = [200, 30, 30]  # red flow in half of the frames
        path = write_video(tmp_path / "doppler.mkv", frames, codec="ffv1", pix_fmt="bgr0", source_format="rgb24")
        expected, video = read_video(path), read_video(path, decoder="torchcodec")
        np.testing.assert_array_equal(video.frames, expected.frames)
        assert video.coloured_share == expected.coloured_share > 0.1

    @pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
    def test_files_that_were_cut_off(
        self, tmp_path: Path, write_video: Writer, name: str, codec: str, pix_fmt: str
    ) -> None:
        path = write_video(tmp_path / name, beating_texture(40), codec=codec, pix_fmt=pix_fmt)
        data = path.read_bytes()
        first, end = data.index(b"movi"), data.index(b"idx1")
        path.write_bytes(data[: (first + end) // 2])
        with pytest.raises(VideoReadError, match=r"is damaged or cut off: only \d+ frames of the 40"):
            read_video(path, decoder="torchcodec")
        with pytest.warns(UserWarning, match="using what is there"):
            late = read_video(path, [0, 39], allow_truncated=True, decoder="torchcodec").frames
        with pytest.warns(UserWarning, match="using what is there"):
            np.testing.assert_array_equal(late, read_video(path, [0, 39], allow_truncated=True).frames)
        early = read_video(path, [2, 0], decoder="torchcodec").frames
        np.testing.assert_array_equal(early, read_video(path, [2, 0]).frames)

    def test_length_that_the_header_does_not_state(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "ten.mkv", ramp(10), codec="ffv1", pix_fmt="gray")
        np.testing.assert_array_equal(read_video(path, [9], decoder="torchcodec").frames, ramp(10)[9:])
        with pytest.raises(VideoReadError, match=r"ten\.mkv: has 10 frames, but frame 12 was asked for"):
            read_video(path, [3, 12], decoder="torchcodec")

    def test_rotated_clips_are_not_turned(self, tmp_path: Path, write_video: Writer) -> None:
        path = write_video(tmp_path / "turned.mp4", beating_texture(4), codec="mpeg4", pix_fmt="yuv420p")
        data = bytearray(path.read_bytes())
        matrix = b"".join(value.to_bytes(4, "big") for value in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
        turned = b"".join(
            (value % 2**32).to_bytes(4, "big") for value in (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
        )
        track = data.index(matrix, data.index(b"tkhd"))
        data[track : track + 36] = turned
        path.write_bytes(data)
        assert load_torchcodec()(path)[0].shape == (3, 64, 48)  # what torchcodec would have made of it
        video = read_video(path, decoder="torchcodec")
        assert video.frames.shape == (4, 48, 64)
        np.testing.assert_array_equal(video.frames, read_video(path).frames)

    def test_play_lists_are_refused_before_torchcodec_sees_them(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp
    ) -> None:
        target = write_video(tmp_path / "target.avi", ramp(4))
        path = tmp_path / "list.avi"
        path.write_text(f"ffconcat version 1.0\nfile {target.name}\n")
        with pytest.raises(VideoReadError, match="is not a video"):
            read_video(path, decoder="torchcodec")


class TestUnusable:
    @pytest.fixture
    def path(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> Path:
        return write_video(tmp_path / "clip.avi", ramp(4))

    @pytest.fixture
    def fake(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
        package.decoders = decoders  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torchcodec", package)
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
        return package

    def test_not_installed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchcodec", None)
        with pytest.raises(VideoReadError, match=r"torchcodec: is not installed; pip install 'echomen-hf\[torchcodec"):
            read_video(path, decoder="torchcodec")
        assert read_video(path).num_frames == 4

    def test_without_ffmpeg(self, path: Path, fake: ModuleType) -> None:
        fake.ffmpeg_major_version = None  # type: ignore[attr-defined]
        fake.decoders.VideoDecoder = object
        with pytest.raises(VideoReadError, match="torchcodec: finds no FFmpeg; .*install FFmpeg"):
            read_video(path, decoder="torchcodec")

    def test_broken_installation(self, path: Path, fake: ModuleType) -> None:
        with pytest.raises(VideoReadError, match="torchcodec: cannot be loaded .*VideoDecoder"):
            read_video(path, decoder="torchcodec")

    def test_unknown_decoder(self, path: Path) -> None:
        with pytest.raises(ValueError, match="decoder must be one of pyav, simplejpeg, torchcodec, got 'opencv'"):
            read_video(path, decoder="opencv")
