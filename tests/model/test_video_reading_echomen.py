from __future__ import annotations

import io
import pickle
import re
import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from echomen_hf.data.validation import validate_videos
from echomen_hf.model import pyav_reading_echomen as pyav_reader
from echomen_hf.model.echo_video_echomen import EchoVideo, VideoInfo, require_moving, usable_fps
from echomen_hf.model.video_reading_echomen import probe_video, read_video
from echomen_hf.model.video_source_echomen import VideoReadError
from helpers.avi_files import jpeg
from helpers.video_files import write_matroska


Writer = Callable[..., Path]
Ramp = Callable[..., NDArray[np.uint8]]

# File name, codec, pixel format, encoder options, allowed error in grey levels.
FORMATS = [
    pytest.param("clip.avi", "mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}, 2, id="mjpeg-avi"),
    pytest.param("clip.avi", "mpeg4", "yuv420p", {"qmin": "1", "qmax": "1"}, 2, id="mpeg4-avi"),
    pytest.param("clip.mp4", "libx264", "yuv420p", {"crf": "4"}, 2, id="h264-mp4"),
    pytest.param("clip.mkv", "ffv1", "gray", {}, 0, id="ffv1-mkv"),
    pytest.param("clip.avi", "rawvideo", "gray", {}, 0, id="raw-avi"),
    pytest.param("clip.avi", "png", "gray", {}, 0, id="png-avi"),
    pytest.param("clip.mkv", "ffv1", "gray16le", {}, 0, id="ffv1-16bit-mkv"),
    pytest.param("clip.gif", "gif", "gray", {}, 0, id="gif"),
    pytest.param("clip.mkv", "ffv1", "bgr0", {}, 1, id="ffv1-rgb-mkv"),
]


def needs_encoder(codec: str) -> None:
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this FFmpeg has no {codec} encoder")


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "options", "tolerance"), FORMATS)
class TestEveryFormat:
    def test_grey_levels_frame_rate_and_header(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp, name, codec, pix_fmt, options, tolerance
    ) -> None:
        needs_encoder(codec)
        frames = ramp(40)
        path = write_video(tmp_path / name, frames, fps=50, codec=codec, pix_fmt=pix_fmt, **options)
        video = read_video(path)
        assert video.frames.shape == frames.shape
        assert video.frames.dtype == np.uint8
        assert video.fps == 50
        # Two columns on either side of the edge are left out: block transforms ring there.
        columns = np.r_[0:16, 32:48]
        error = np.abs(video.frames.astype(int) - frames)[:, :, columns]
        assert error.max() <= tolerance
        assert probe_video(path) == VideoInfo(num_frames=40, height=32, width=48, fps=50)

    def test_single_frames_equal_those_of_the_whole_decode(
        self, tmp_path: Path, write_video: Writer, name, codec, pix_fmt, options, tolerance
    ) -> None:
        needs_encoder(codec)
        frames = np.random.default_rng(0).integers(0, 256, (30, 32, 48), np.uint8)
        path = write_video(tmp_path / name, frames, codec=codec, pix_fmt=pix_fmt, **options)
        indices = [7, 0, 21, 21, 3]
        np.testing.assert_array_equal(read_video(path, indices).frames, read_video(path).frames[indices])
        np.testing.assert_array_equal(read_video(path, [29]).frames, read_video(path).frames[29:])


@pytest.mark.parametrize(
    ("pix_fmt", "expected"), [("yuv420p", [0, 0, 128, 255, 255]), ("yuvj420p", [0, 16, 126, 235, 255])]
)
def test_limited_range_is_stretched_and_full_range_is_not(
    tmp_path: Path, write_video: Writer, pix_fmt: str, expected: list[int]
) -> None:
    luma = np.repeat(np.array([0, 16, 126, 235, 255], np.uint8), 4)  # (126 - 16) x 255/219 = 128.08
    planes = np.full((2, 24, 20), 128, np.uint8)  # 16 rows of luma above 8 of chroma
    planes[:, :16] = luma
    # Raw video keeps no range flag: the name of the pixel format alone tells yuv (limited) from yuvj (full).
    path = write_video(
        tmp_path / "clip.mkv",
        planes,
        codec="ffv1" if pix_fmt == "yuv420p" else "mjpeg",
        pix_fmt=pix_fmt,
        source_format=pix_fmt,
        **({} if pix_fmt == "yuv420p" else {"qmin": "1", "qmax": "1"}),
    )
    columns = read_video(path).frames[0, 8, ::4].astype(int)
    np.testing.assert_allclose(columns, expected, atol=0 if pix_fmt == "yuv420p" else 6)


def test_a_range_tag_overrules_the_pixel_format(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    planes = np.full((24, 16), 128, np.uint8)
    planes[:16] = 77
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=50)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", 16, 16
        stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.color_range = av.video.reformatter.ColorRange.JPEG
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    np.testing.assert_array_equal(read_video(path).frames, np.full((1, 16, 16), 77))


def test_padding_of_lines_is_not_mistaken_for_pixels(tmp_path: Path, write_video: Writer) -> None:
    frames = np.random.default_rng(1).integers(
        0, 256, (3, 30, 50), np.uint8
    )  # 50 is no multiple of FFmpeg's alignment
    path = write_video(tmp_path / "clip.mkv", frames, codec="ffv1", pix_fmt="gray")
    np.testing.assert_array_equal(read_video(path).frames, frames)


def test_colour_becomes_luma(tmp_path: Path, write_video: Writer) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
    frames = np.tile(np.repeat(colours, 8, axis=0), (2, 16, 1, 1))  # (2, 16, 32, 3)
    path = write_video(tmp_path / "clip.mkv", frames, codec="ffv1", pix_fmt="bgr0", source_format="rgb24")
    luma = read_video(path).frames[0, 8, 4::8].astype(int)
    np.testing.assert_allclose(luma, [76, 150, 29, 255], atol=1)  # ITU-R BT.601: 0.299, 0.587, 0.114


def test_every_kind_of_source_gives_the_same_frames(tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
    path = write_video(tmp_path / "0XA.avi", ramp(5))
    expected = read_video(path)
    data = path.read_bytes()
    with open(path, "rb") as file:
        file.seek(100)
        sources = {
            "text": str(path),
            "bytes": data,
            "open file": file,
            "buffer": io.BytesIO(data),
            "row with path": {"path": str(path), "bytes": None},
            "row with bytes": {"path": "elsewhere/0XA.avi", "bytes": data},
        }
        for kind, source in sources.items():
            video = read_video(source)
            np.testing.assert_array_equal(video.frames, expected.frames, err_msg=kind)
            assert probe_video(source) == VideoInfo(5, 32, 48, 50), kind
        assert not file.closed
    assert read_video({"path": "elsewhere/0XA.avi", "bytes": data}).source == "0XA.avi"


def test_duration_counts_every_frame(tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
    assert read_video(write_video(tmp_path / "a.avi", ramp(30), fps=25)).duration_seconds == pytest.approx(1.2)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")])
def test_nothing_past_the_last_wanted_frame_is_needed(
    tmp_path: Path, write_video: Writer, ramp: Ramp, codec: str, pix_fmt: str
) -> None:
    path = write_video(tmp_path / "clip.avi", ramp(40), codec=codec, pix_fmt=pix_fmt)
    whole = read_video(path).frames
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + (data.index(b"idx1") - data.index(b"movi")) // 2])
    np.testing.assert_array_equal(read_video(path, [5, 0, 3]).frames, whole[[5, 0, 3]])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv420p"), ("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")])
def test_decoding_stops_after_the_last_wanted_frame(
    tmp_path: Path, write_video: Writer, ramp: Ramp, suffix: str, codec: str, pix_fmt: str
) -> None:
    needs_encoder(codec)
    options = {"bf": "0", **({"tune": "zerolatency"} if codec == "libx264" else {})}
    path = write_video(tmp_path / f"clip.{suffix}", ramp(40), codec=codec, pix_fmt=pix_fmt, **options)
    whole = read_video(path).frames
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for packet in packets[24:]:
        assert data.count(packet) == 1
        data = data.replace(packet, b"\xff" * len(packet))  # noise, where frames 24 to 39 were
    path.write_bytes(data)
    np.testing.assert_array_equal(read_video(path, [20, 3]).frames, whole[[20, 3]])
    # The header still tells the number of frames, as documented: nothing is decoded for it.
    assert probe_video(path).num_frames == 40
    with pytest.raises(VideoReadError, match="damage"):
        read_video(path)
    (problem,) = validate_videos([{"video": str(path)}], level="frames", progress=False)
    assert "damage" in problem.problem


def test_a_later_frame_of_another_size_is_found_by_decoding(tmp_path: Path) -> None:
    small, large = jpeg(np.zeros((32, 48), np.uint8)), jpeg(np.zeros((64, 96), np.uint8))
    path = write_matroska(tmp_path / "a.mkv", [small] * 9 + [large], (32, 48))
    assert probe_video(path) == VideoInfo(10, 32, 48, 50)
    with pytest.raises(VideoReadError, match=r"a\.mkv: changes its frame size .* \(64, 96\) at frame 9"):
        read_video(path)
    (problem,) = validate_videos([{"video": str(path)}], level="frames", progress=False)
    assert "changes its frame size" in problem.problem


def test_frames_between_the_wanted_ones_are_not_decoded_where_each_stands_alone(
    tmp_path: Path, write_video: Writer, ramp: Ramp
) -> None:
    path = write_video(tmp_path / "clip.avi", ramp(10))
    whole = read_video(path).frames
    data = bytearray(path.read_bytes())
    chunks = [match.start() for match in re.finditer(b"00dc", data) if match.start() > data.index(b"movi")]
    data[chunks[4] + 8 : chunks[5]] = bytes(chunks[5] - chunks[4] - 8)  # the JPEG of frame 4
    path.write_bytes(data)
    np.testing.assert_array_equal(read_video(path, [3, 5, 9]).frames, whole[[3, 5, 9]])
    with pytest.raises(VideoReadError, match="is damaged"):
        read_video(path, [4])


class TestDamagedFiles:
    @pytest.fixture
    def cut_in_half(self, tmp_path: Path, write_video: Writer) -> Path:
        frames = np.random.default_rng(0).integers(0, 256, (60, 32, 48), np.uint8)
        path = write_video(tmp_path / "cut.avi", frames)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        return path

    def test_truncated_avi_is_refused(self, cut_in_half: Path) -> None:
        with pytest.raises(
            VideoReadError, match=r"cut\.avi: is damaged or cut off: only \d+ frames of the 60.*copy it"
        ):
            read_video(cut_in_half)

    def test_truncated_avi_can_be_used_on_request(self, cut_in_half: Path) -> None:
        with pytest.warns(UserWarning, match=r"cut\.avi: is damaged or cut off.*using what is there"):
            video = read_video(cut_in_half, allow_truncated=True)
        assert 20 <= video.num_frames <= 31
        with pytest.warns(UserWarning, match="using what is there"):
            late = read_video(cut_in_half, [0, 59], allow_truncated=True)
        np.testing.assert_array_equal(late.frames, video.frames[[0, -1]])

    def test_frames_before_the_cut_are_read_without_complaint(
        self, cut_in_half: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        assert read_video(cut_in_half, [0, 10]).num_frames == 2
        assert not recwarn.list

    def test_one_missing_frame_repeats_the_last(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "clip.avi", ramp(40))
        data = path.read_bytes()
        last = data.rindex(b"00dc", 0, data.rindex(b"idx1"))
        path.write_bytes(data[:last])
        video = read_video(path)
        assert video.num_frames == 39
        np.testing.assert_array_equal(read_video(path, [39]).frames[0], video.frames[38])

    def test_text_in_disguise(self, tmp_path: Path) -> None:
        path = tmp_path / "text.avi"
        path.write_text("This is not a video.\n" * 100)
        with pytest.raises(VideoReadError, match=r"text\.avi: is not a video.*check that the file"):
            read_video(path)

    @pytest.mark.parametrize("content", ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n"])
    def test_play_lists_cannot_point_elsewhere(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp, content: str
    ) -> None:
        target = write_video(tmp_path / "target.avi", ramp(4))
        path = tmp_path / "list.avi"
        path.write_text(content.format(target))
        with pytest.raises(VideoReadError, match="is not a video"):
            read_video(path)

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.avi"
        path.touch()
        with pytest.raises(VideoReadError, match=r"empty\.avi: is an empty file"):
            read_video(path)

    def test_no_frame_can_be_decoded(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "none.avi", ramp(4))
        data = bytearray(path.read_bytes())
        start = data.index(b"movi") + 4
        data[start:] = bytes(len(data) - start)
        path.write_bytes(data)
        with pytest.raises(VideoReadError, match=r"none\.avi: holds no frame that can be decoded"):
            read_video(path)

    def test_sound_only(self, tmp_path: Path) -> None:
        path = tmp_path / "sound.avi"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("pcm_s16le", rate=8000)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            output.mux(stream.encode(frame))
        with pytest.raises(VideoReadError, match=r"sound\.avi: has no video stream"):
            read_video(path)

    def test_other_media(self, tmp_path: Path) -> None:
        path = tmp_path / "tone.avi"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(1600))
        with pytest.raises(VideoReadError, match="is not a video"):
            read_video(path)


class TestRefusedSources:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"0XA\.avi: does not exist; check the path"):
            read_video(tmp_path / "0XA.avi")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(VideoReadError, match="is a folder"):
            read_video(tmp_path)

    @pytest.mark.parametrize("url", ["https://example.org/0XA.avi", "hf://datasets/x/0XA.avi"])
    def test_url(self, url: str) -> None:
        with pytest.raises(VideoReadError, match="is a URL; download the file"):
            read_video(url)

    def test_wrong_type(self) -> None:
        with pytest.raises(TypeError, match="Cannot read a video from int"):
            read_video(3)  # type: ignore[arg-type]

    @pytest.mark.parametrize("row", [{}, {"path": None, "bytes": None}])
    def test_row_with_neither_path_nor_bytes(self, row: dict[str, None]) -> None:
        with pytest.raises(VideoReadError, match="neither a path nor bytes"):
            read_video(row)

    def test_row_with_no_bytes_in_it(self) -> None:
        with pytest.raises(VideoReadError, match="is empty"):
            read_video({"path": "0XA.avi", "bytes": b""})


class TestIndices:
    @pytest.fixture(params=[("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")], ids=["intra", "inter"])
    def ten_frames(self, request: pytest.FixtureRequest, tmp_path: Path, write_video: Writer, ramp: Ramp) -> Path:
        codec, pix_fmt = request.param
        return write_video(tmp_path / "ten.avi", ramp(10), codec=codec, pix_fmt=pix_fmt)

    def test_beyond_the_end(self, ten_frames: Path) -> None:
        with pytest.raises(VideoReadError, match=r"ten\.avi: has 10 frames, but frame 10 was asked for"):
            read_video(ten_frames, [0, 10])

    def test_beyond_the_end_of_a_file_that_does_not_state_its_length(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp
    ) -> None:
        path = write_video(tmp_path / "ten.mkv", ramp(10), codec="ffv1", pix_fmt="gray")
        with pytest.raises(VideoReadError, match=r"ten\.mkv: has 10 frames, but frame 12 was asked for"):
            read_video(path, [3, 12])

    @pytest.mark.parametrize("indices", [[3, -1], []])
    def test_negative_or_none(self, ten_frames: Path, indices: list[int]) -> None:
        with pytest.raises(ValueError, match="frame numbers from 0 on"):
            read_video(ten_frames, indices)

    def test_numpy_indices(self, ten_frames: Path) -> None:
        assert read_video(ten_frames, np.array([9, 0])).num_frames == 2


def test_too_large_a_clip_is_refused_before_memory_runs_out(tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
    path = write_video(tmp_path / "big.avi", ramp(10))
    assert read_video(path, max_bytes=10 * 32 * 48).num_frames == 10
    with pytest.raises(VideoReadError, match=r"big\.avi: holds more than 15359 bytes.*max_bytes"):
        read_video(path, max_bytes=10 * 32 * 48 - 1)


class TestFrameRate:
    def test_absurd_rate_is_replaced_with_a_warning(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "slow.avi", ramp(4), fps=Fraction(1, 10))
        with pytest.warns(UserWarning, match=r"slow\.avi: states an unbelievable frame rate of 0.1.*assuming 42"):
            assert read_video(path, default_fps=42).fps == 42
        with pytest.warns(UserWarning, match="assuming 50"):
            assert probe_video(path).fps == 50

    def test_without_default_it_is_an_error(self, tmp_path: Path, write_video: Writer, ramp: Ramp) -> None:
        path = write_video(tmp_path / "slow.avi", ramp(4), fps=Fraction(1, 10))
        with pytest.raises(VideoReadError, match=r"slow\.avi: states an unbelievable frame rate"):
            read_video(path, default_fps=None)

    def test_missing_rate(self) -> None:
        with pytest.warns(UserWarning, match="a.avi: states no frame rate; assuming 50"):
            assert usable_fps(None, "a.avi", 50.0) == 50


class TestStillImages:
    def test_one_frame_is_read_but_refused_where_motion_is_needed(
        self, tmp_path: Path, write_video: Writer, ramp: Ramp
    ) -> None:
        video = read_video(write_video(tmp_path / "still.avi", ramp(1)))
        assert video.num_frames == 1
        with pytest.raises(VideoReadError, match=r"still\.avi: has one frame; EF needs at least 2"):
            require_moving(video)

    def test_two_frames_pass(self) -> None:
        video = EchoVideo(np.zeros((2, 8, 8), np.uint8), 50.0, "two.avi")
        assert require_moving(video) is video

    def test_header_is_named_by_the_caller(self) -> None:
        with pytest.raises(VideoReadError, match=r"0XA\.avi: has one frame"):
            require_moving(VideoInfo(1, 112, 112, 50.0), "0XA.avi")


def test_error_survives_a_worker_process() -> None:
    error = VideoReadError.about("0XA.avi", "is broken", "copy it again")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.problem, copy.remedy) == (
        "0XA.avi: is broken; copy it again.",
        "is broken",
        "copy it again",
    )


def test_without_pyav_the_remedy_is_named(
    tmp_path: Path, write_video: Writer, ramp: Ramp, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "clip.avi", ramp(2))
    monkeypatch.setattr(pyav_reader, "av", None)
    with pytest.raises(VideoReadError, match="pip install av"):
        read_video(path)
