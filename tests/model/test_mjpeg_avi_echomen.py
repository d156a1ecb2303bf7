from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from echomen_hf.model import pyav_reading_echomen as pyav_reader
from echomen_hf.model.mjpeg_avi_echomen import read_avi_index
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.model.video_source_echomen import VideoReadError, VideoSource, resolve_source


Writer = Callable[..., Path]
Ramp = Callable[..., NDArray[np.uint8]]

WANTED = [5, 0, 12, 12]


@pytest.fixture
def path(tmp_path: Path, write_video: Writer) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (20, 30, 50, 3), np.uint8)
    return write_video(tmp_path / "clip.avi", frames, source_format="rgb24")


@pytest.fixture
def without_demuxer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the index serves: a test that passes was not helped out by FFmpeg's demuxer."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the demuxer was asked")

    monkeypatch.setattr(pyav_reader, "_open_stream", refuse)


def has_index(source: VideoSource) -> bool:
    return read_avi_index(resolve_source(source)) is not None


def patched(path: Path, place: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[place : place + len(value)] = value
    path.write_bytes(data)
    return path


def index_place(path: Path) -> int:
    """Place of the first entry of the index."""
    return path.read_bytes().rindex(b"idx1") + 8


def test_frames_rate_and_colour_are_those_of_the_demuxer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pyav_reader, "read_avi_index", lambda source: None)
        expected = read_video(path, WANTED)
    assert expected.coloured_share > 0
    video = read_video(path, WANTED)
    np.testing.assert_array_equal(video.frames, expected.frames)
    assert (video.fps, video.coloured_share) == (expected.fps, expected.coloured_share)


@pytest.mark.usefixtures("without_demuxer")
class TestWithoutDemuxer:
    def test_wanted_frames_in_the_order_asked_for(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "clip.avi", ramp(20), qmin="1", qmax="1")
        video = read_video(path, WANTED)
        np.testing.assert_allclose(video.frames[:, 5, 5].astype(int), [25, 0, 60, 60], atol=2)
        assert (video.fps, video.source) == (50, str(path))

    @pytest.mark.parametrize("kind", ["bytes", "file", "row"])
    def test_other_sources_than_paths(self, path: Path, kind: str) -> None:
        data = path.read_bytes()
        sources: dict[str, VideoSource] = {
            "bytes": data,
            "file": io.BytesIO(data),
            "row": {"path": "0XA.avi", "bytes": data},
        }
        np.testing.assert_array_equal(read_video(sources[kind], WANTED).frames, read_video(path, WANTED).frames)

    def test_an_index_that_counts_from_the_start_of_the_file(self, path: Path) -> None:
        whole = read_video(path, WANTED).frames
        data = path.read_bytes()
        first = data.index(b"movi")
        entries = np.frombuffer(data[index_place(path) :], "<u4").reshape(-1, 4).copy()
        entries[:, 2] += first
        patched(path, index_place(path), entries.tobytes())
        np.testing.assert_array_equal(read_video(path, WANTED).frames, whole)

    def test_a_frame_past_the_end_is_refused(self, path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"clip\.avi: has 20 frames, but frame 20 was asked for"):
            read_video(path, [20])

    def test_only_wanted_frames_are_read(self, path: Path) -> None:
        data = path.read_bytes()
        places = read_avi_index(resolve_source(path))
        assert places is not None

        class Watched(io.BytesIO):
            name = "watched.avi"
            num_bytes = 0

            def read(self, size: int | None = -1) -> bytes:
                piece = super().read(size)
                self.num_bytes += len(piece)
                return piece

        source = Watched(data)
        read_video(source, [3, 9])
        header = data.index(b"movi")
        assert source.num_bytes < header + 20 * 16 + places.sizes[[3, 9]].sum() + 300 < len(data) / 2


@pytest.mark.parametrize("fps", [25, 50, Fraction(30000, 1001), Fraction(498, 10), Fraction(46875, 1000), 333])
def test_frame_rate_is_that_of_ffmpeg(tmp_path: Path, write_video: Writer, ramp: Ramp, fps: Fraction) -> None:
    path = write_video(tmp_path / "clip.avi", ramp(20), fps=fps)
    assert read_video(path, [0]).fps == read_video(path).fps == float(fps)
    assert has_index(path)


class TestLeftToFFmpeg:
    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt"),
        [("clip.avi", "mpeg4", "yuv420p"), ("clip.avi", "png", "gray"), ("clip.mkv", "mjpeg", "yuvj420p")],
    )
    def test_other_codecs_and_containers(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp, name: str, codec: str, pix_fmt: str
    ) -> None:
        path = write_video(tmp_path / name, ramp(6), codec=codec, pix_fmt=pix_fmt)
        assert not has_index(path)
        np.testing.assert_array_equal(read_video(path, [4, 2]).frames, read_video(path).frames[[4, 2]])

    def test_a_second_stream(self, tmp_path: Path, ramp: Ramp) -> None:
        path = tmp_path / "sound.avi"
        with av.open(str(path), "w") as output:
            video, audio = output.add_stream("mjpeg", rate=50), output.add_stream("pcm_s16le", rate=8000)
            video.pix_fmt, video.width, video.height = "yuvj420p", 48, 32
            for image in ramp(5):
                output.mux(video.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuvj420p")))
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            output.mux([*video.encode(), *audio.encode(sound), *audio.encode()])
        assert not has_index(path)
        np.testing.assert_array_equal(read_video(path, [4, 2]).frames, read_video(path).frames[[4, 2]])

    @pytest.mark.parametrize("size", [1, 4, 11, 40, 100, 5000])
    def test_a_file_cut_short(self, path: Path, size: int) -> None:
        path.write_bytes(path.read_bytes()[:size])
        assert not has_index(path)
        with pytest.raises(VideoReadError, match=r"clip\.avi: "):
            read_video(path, [0])

    @pytest.mark.parametrize(
        "content", [b"?", bytes(500), b"RIFF\x10\x00\x00\x00AVI LIST\x04\x00\x00\x00movi" + bytes(40)]
    )
    def test_anything_else(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "other.avi"
        path.write_bytes(content)
        assert not has_index(path)

    def test_a_sound_file(self, tmp_path: Path) -> None:
        with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 1000, "NONE", "not compressed"))
            file.writeframes(bytes(2000))
        assert not has_index(tmp_path / "sound.wav")

    def test_a_frame_of_no_bytes_which_repeats_the_one_before(self, path: Path) -> None:
        assert not has_index(patched(path, index_place(path) + 3 * 16 + 12, bytes(4)))

    def test_settings_for_the_decoder(self, path: Path) -> None:
        place = path.read_bytes().index(b"strf") + 4
        assert struct.unpack_from("<I", path.read_bytes(), place) == (40,)
        assert not has_index(patched(path, place, struct.pack("<I", 49)))

    def test_a_file_of_nothing_but_empty_chunks(self) -> None:
        assert not has_index(b"RIFF\x10\x00\x00\x00AVI " + bytes(100_000))

    def test_an_index_with_fewer_entries_than_frames(self, path: Path) -> None:
        length = path.read_bytes().index(b"strh") + 8 + 32
        assert struct.unpack_from("<I", path.read_bytes(), length) == (20,)
        assert not has_index(patched(path, length, struct.pack("<I", 21)))

    @pytest.mark.parametrize("field", [8, 12], ids=["place", "size"])
    def test_an_index_that_points_elsewhere(self, path: Path, field: int) -> None:
        whole = read_video(path).frames
        place = index_place(path) + 5 * 16 + field
        (value,) = struct.unpack_from("<I", path.read_bytes(), place)
        patched(path, place, struct.pack("<I", value + 2))
        assert has_index(path)
        np.testing.assert_array_equal(read_video(path, WANTED).frames, whole[WANTED])

    def test_a_damaged_frame_is_reported_as_ever(self, path: Path) -> None:
        avi = read_avi_index(resolve_source(path))
        assert avi is not None
        patched(path, int(avi.offsets[5]) + 8, bytes(int(avi.sizes[5])))
        with pytest.raises(VideoReadError, match=r"clip\.avi: is damaged"):
            read_video(path, [5])
        assert read_video(path, [4, 6]).num_frames == 2
