"""Every way to read a file gives the frames, count, size and rate that were written."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from echomen_hf import VideoReadError, probe_video, read_video
from echomen_hf.model.echo_video_echomen import VideoInfo
from helpers.avi_files import jpeg, write_avi
from helpers.video_files import encode_video, write_matroska


Frames = NDArray[np.uint8]

HEIGHT, WIDTH = 48, 64


def moving_pattern(num_frames: int = 30) -> Frames:
    """Frames of which none is like another, smooth enough for every codec, without symmetry."""
    time, rows, columns = np.ogrid[:num_frames, :HEIGHT, :WIDTH]
    pattern = 120 + 60 * np.sin(rows / 9 + 1.7 * time) * np.cos(columns / 11 - 0.9 * time) + columns / 2 + rows / 3
    return np.clip(pattern, 0, 255).astype(np.uint8)


TRUTH = moving_pattern()


def check(path: Path, expected: Frames, fps: float, tolerance: float = 3.0, *, same_size: bool = True) -> None:
    """Compare every way of reading with the known frames: the mean error of each frame in grey levels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        video, info = read_video(path), probe_video(path)
    assert video.frames.shape[0] == len(expected)
    if same_size:
        assert video.frames.shape == expected.shape
        errors = np.abs(video.frames.astype(int) - expected).mean(axis=(1, 2))
        assert errors.max() <= tolerance, errors
    assert video.fps == pytest.approx(fps, rel=1e-3)
    assert info == VideoInfo(*video.frames.shape, video.fps)
    last = len(expected) - 1
    for indices in ([7, 0, 17, 17, 3], [last], list(range(1, last, 4))):
        for source, decoder in ((path, "pyav"), (path.read_bytes(), "pyav"), (path, "simplejpeg")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                some = read_video(source, indices, decoder=decoder)
            difference = np.abs(some.frames.astype(int) - video.frames[indices])
            assert difference.max() <= (decoder == "simplejpeg"), (indices, decoder)
            assert some.fps == video.fps


BEST = {"qmin": "1", "qmax": "2"}
SHARP: dict[str, dict[str, str]] = {
    **dict.fromkeys(("mjpeg", "mpeg4", "mpeg2video", "wmv2", "flv", "msmpeg4v3"), BEST),
    "libx264": {"crf": "6"},
    "libx265": {"crf": "6", "x265-params": "log-level=none"},
    "libvpx": {"crf": "4", "b": "4M"},
    "libvpx-vp9": {"crf": "4", "b": "4M", "cpu-used": "8", "deadline": "realtime"},
    "libsvtav1": {"crf": "10", "preset": "12", "svtav1-params": "lp=1"},
}
# Container, codec, pixel formats.
ZOO = [
    ("avi", "mjpeg", "yuvj420p yuvj422p yuvj444p"),
    ("mov", "mjpeg", "yuvj420p"),
    ("mkv", "mjpeg", "yuvj420p"),
    ("avi", "png", "gray rgb24"),
    ("mov", "png", "gray gray16be rgba"),
    ("mkv", "ffv1", "gray gray10le gray16le yuv420p yuv444p yuv422p10le bgr0 gbrp10le"),
    ("avi", "rawvideo", "gray bgr24 yuv420p uyvy422"),
    ("mov", "rawvideo", "gray rgb24 uyvy422"),
    ("mkv", "rawvideo", "gray yuv420p nv12"),
    ("nut", "rawvideo", "gray gray16le yuv422p"),
    ("avi", "huffyuv", "yuv422p rgb24"),
    ("avi", "utvideo", "yuv420p gbrp"),
    ("mov", "prores_ks", "yuv422p10le"),
    ("mov", "qtrle", "gray rgb24"),
    ("mp4", "libx264", "yuv420p yuvj420p yuv444p yuv420p10le"),
    ("mkv", "libx264", "yuv420p"),
    ("avi", "libx264", "yuv420p"),
    ("ts", "libx264", "yuv420p"),
    ("flv", "libx264", "yuv420p"),
    ("h264", "libx264", "yuv420p"),
    ("mp4", "libx265", "yuv420p gray gray10le"),
    ("hevc", "libx265", "yuv420p"),
    ("avi", "mpeg4", "yuv420p"),
    ("mp4", "mpeg4", "yuv420p"),
    ("m4v", "mpeg4", "yuv420p"),
    ("mpg", "mpeg2video", "yuv420p"),
    ("ts", "mpeg2video", "yuv422p"),
    ("webm", "libvpx", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p yuv444p"),
    ("mp4", "libsvtav1", "yuv420p"),
    ("wmv", "wmv2", "yuv420p"),
    ("avi", "msmpeg4v3", "yuv420p"),
    ("flv", "flv", "yuv420p"),
    ("gif", "gif", "gray"),
    ("apng", "apng", "gray rgb24"),
]
CONTAINERS = {"mpg": "mpeg", "ts": "mpegts", "wmv": "asf"}
RATES = {"mpeg2video": 25}


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [(suffix, codec, pix_fmt) for suffix, codec, formats in ZOO for pix_fmt in formats.split()],
    ids=str,
)
def test_codecs_containers_and_pixel_formats(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    fps = RATES.get(codec, 50)
    try:
        options = {"container": CONTAINERS.get(suffix), **SHARP.get(codec, {})}
        path = encode_video(tmp_path / f"a.{suffix}", TRUTH, fps, codec, pix_fmt, **options)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot write it: {error}")
    check(path, TRUTH, fps)


def test_frames_between_two_others_are_put_in_order(tmp_path: Path) -> None:
    for suffix in ("avi", "mp4", "mkv"):
        path = encode_video(tmp_path / f"b.{suffix}", TRUTH, 50, "mpeg4", "yuv420p", bf="2", **BEST)
        check(path, TRUTH, 50)


class TestMotionJpeg:
    @pytest.mark.parametrize("empty", [[10], range(2, 30, 3), [0], [28, 29], [0, 5, 6, 7, 29]], ids=str)
    def test_empty_chunks_hold_the_frame_before(self, tmp_path: Path, empty: Any) -> None:
        images = [b"" if number in empty else jpeg(frame) for number, frame in enumerate(TRUTH)]
        filled = np.array([number for number in range(30) if number not in empty])
        shown = filled[np.maximum(np.searchsorted(filled, np.arange(30), side="right") - 1, 0)]
        check(write_avi(tmp_path / "a.avi", images, (HEIGHT, WIDTH)), TRUTH[shown], 50)

    def test_fields(self, tmp_path: Path) -> None:
        def field(rows: Frames, polarity: int) -> bytes:
            data = jpeg(rows)
            rest = data[4 + int.from_bytes(data[4:6], "big") :]
            return data[:2] + b"\xff\xe0\x00\x10AVI1" + bytes([polarity]) + bytes(9) + rest

        images = [field(frame[1::2], 2) + field(frame[0::2], 1) for frame in TRUTH]
        check(write_avi(tmp_path / "a.avi", images, (HEIGHT, WIDTH)), TRUTH, 50)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["avi", "mkv"])
    def test_orientation_of_the_images(self, tmp_path: Path, orientation: int, suffix: str) -> None:
        exif = Image.Exif()
        exif[0x112] = orientation
        images = [jpeg(frame, exif=exif) for frame in TRUTH]
        path = tmp_path / f"a.{suffix}"
        (write_avi if suffix == "avi" else write_matroska)(path, images, (HEIGHT, WIDTH))
        shown = []
        for frame in TRUTH:
            image = Image.fromarray(frame)
            image.getexif()[0x112] = orientation
            shown.append(np.asarray(ImageOps.exif_transpose(image)))
        check(path, np.stack(shown), 50)

    def test_pixel_shape_of_the_images(self, tmp_path: Path) -> None:
        path = write_avi(tmp_path / "wide.avi", [jpeg(f, dpi=(100, 50)) for f in TRUTH], (HEIGHT, WIDTH))
        wide = read_video(path).frames
        assert wide.shape[1:] in ((HEIGHT, 2 * WIDTH), (2 * HEIGHT, WIDTH))
        check(path, wide, 50)

    def test_limited_range(self, tmp_path: Path) -> None:
        comment = b"\xff\xfe\x00\x0cCS=ITU601\0"
        squeezed = np.rint(16 + TRUTH * (219 / 255)).astype(np.uint8)
        colour = np.repeat(squeezed[..., None], 3, axis=-1)  # (T, H, W, 3)
        images = [(data := jpeg(frame))[:2] + comment + data[2:] for frame in colour]
        check(write_avi(tmp_path / "a.avi", images, (HEIGHT, WIDTH)), TRUTH, 50)


def test_gray_palette(tmp_path: Path) -> None:
    palette = b"".join(bytes([255 - level] * 3 + [0]) for level in range(256))
    images = [(255 - frame[::-1]).tobytes() for frame in TRUTH]
    path = write_avi(tmp_path / "a.avi", images, (HEIGHT, WIDTH), bytes(4), 8, palette=palette)
    check(path, TRUTH, 50)


def patched(path: Path, name: bytes, offset: int, values: bytes) -> Path:
    """Overwrite bytes of the first box of a name in an MP4 file; offsets count from the name's end."""
    data = bytearray(path.read_bytes())
    place = data.index(name) + len(name) + offset
    data[place : place + len(values)] = values
    path.write_bytes(data)
    return path


TURNS: dict[str, tuple[tuple[int, ...], Callable[[Frames], Frames]]] = {
    "90": ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, axes=(1, 2))),
    "180": ((-1, 0, 0, -1), lambda frames: frames[:, ::-1, ::-1]),
    "270": ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, axes=(1, 2))),
    "mirrored": ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
    "other diagonal": ((0, -1, -1, 0), lambda frames: frames[:, ::-1, ::-1].swapaxes(1, 2)),
}


class TestMp4:
    @pytest.mark.parametrize(("matrix", "shown"), TURNS.values(), ids=TURNS)
    def test_display_matrices(self, tmp_path: Path, matrix: tuple[int, ...], shown: Any) -> None:
        path = encode_video(tmp_path / "a.mp4", TRUTH, 50, "mpeg4", "yuv420p", **BEST)
        a, b, c, d = (value << 16 for value in matrix)
        patched(path, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
        check(path, shown(TRUTH), 50)

    @pytest.mark.parametrize(("codec", "pix_fmt"), [("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")])
    def test_edit_lists_hide_frames_without_damage(self, tmp_path: Path, codec: str, pix_fmt: str) -> None:
        path = encode_video(tmp_path / "a.mov", TRUTH, 50, codec, pix_fmt, **BEST)
        # 0.4 s from frame 5 on; the movie counts in ms, the medium in 1/12800 s.
        check(patched(path, b"elst", 8, struct.pack(">2i", 400, 5 * 256)), TRUTH[5:25], 50)

    def test_fragments(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as output:
            stream = output.add_stream("mpeg4", rate=50)
            stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, "yuv420p", {**BEST, "g": "10"}
            for image in TRUTH:
                frame = av.VideoFrame.from_ndarray(image, format="gray")
                output.mux(stream.encode(frame.reformat(format="yuv420p")))
            output.mux(stream.encode())
        check(path, TRUTH, 50)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi"])
@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2), Fraction(8, 9)])
def test_pixels_become_square(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg" if suffix == "avi" else "libx264", rate=50)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if suffix == "avi" else "yuv420p"
        stream.options = BEST if suffix == "avi" else {"crf": "6"}
        stream.codec_context.sample_aspect_ratio = aspect
        for image in TRUTH:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format=stream.pix_fmt)))
        output.mux(stream.encode())
    height, width = (HEIGHT, round(WIDTH * aspect)) if aspect > 1 else (round(HEIGHT / aspect), WIDTH)
    rows = np.minimum((np.arange(height) + 0.5) * HEIGHT / height, HEIGHT - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) * WIDTH / width, WIDTH - 1).astype(int)
    check(path, TRUTH[:, rows][:, :, columns], 50, tolerance=8)


def with_times(path: Path, milliseconds: list[int], codec: str, container: str | None = None) -> Path:
    """Frames at given moments, in a container that knows no rate."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", WIDTH, HEIGHT
        stream.options = SHARP.get(codec, {})
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.framerate = Fraction(0, 1)
        for image, moment in zip(TRUTH, milliseconds):
            frame = av.VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


JITTER = np.cumsum(np.random.default_rng(0).integers(10, 60, 30)).tolist()
TIMES = {
    "jitter": (JITTER, 29 / ((JITTER[-1] - JITTER[0]) / 1000), "frame rate varies"),
    "slow start": ([100 * i for i in range(10)] + [900 + 20 * i for i in range(1, 21)], 29 / 1.3, "frame rate varies"),
    "30 per second": ([round(1000 * i / 30) for i in range(30)], 30, None),
    "150 per second": ([round(1000 * i / 150) for i in range(30)], 150, None),
    "a pause": ([20 * i + 1000 * (i > 14) for i in range(30)], 50, "have gaps of 1 s"),
    "a held last frame": ([20 * i + 1000 * (i > 28) for i in range(30)], 50, "have gaps of 1 s"),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "ffv1"), ("webm", "libvpx"), ("wmv", "wmv2")])
def test_time_stamps_tell_the_rate(tmp_path: Path, name: str, suffix: str, codec: str) -> None:
    milliseconds, fps, warning = TIMES[name]
    path = with_times(tmp_path / f"a.{suffix}", milliseconds, codec, CONTAINERS.get(suffix))
    expected = TRUTH
    if warning == "frame rate varies":
        even = milliseconds[0] + np.arange(30) * 1000 / fps
        distance = np.abs(np.array(milliseconds)[None] - even[:, None])  # (30, 30)
        expected = TRUTH[distance.argmin(axis=1)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_video(path).fps
    assert found == pytest.approx(fps, rel=0.01)
    assert [warning in str(each.message) for each in caught] == ([True] if warning else [])
    check(path, expected, found)


class TestRatesThatAreNotStated:
    @pytest.mark.parametrize(("rate", "period"), [(0, 0), (0, 20000)])
    def test_avi(self, tmp_path: Path, rate: int, period: int) -> None:
        path = write_avi(tmp_path / "a.avi", [jpeg(f) for f in TRUTH], (HEIGHT, WIDTH), rate=rate, period=period)
        if period:
            check(path, TRUTH, 50)
            return
        for read in (read_video, probe_video, lambda path: read_video(path, [3])):
            with pytest.warns(UserWarning, match="states no frame rate; assuming 50"):
                assert read(path).fps == 50

    def test_raw_stream(self, tmp_path: Path) -> None:
        path = encode_video(tmp_path / "a.mjpeg", TRUTH, container="mjpeg", **BEST)
        for read in (read_video, probe_video):
            with pytest.warns(UserWarning, match="states no frame rate; assuming 50"):
                assert read(path).fps == 50
        with pytest.raises(VideoReadError, match=r"a\.mjpeg: states no frame rate"):
            read_video(path, default_fps=None)

    def test_time_base_of_milliseconds_is_no_rate(self, tmp_path: Path) -> None:
        path = encode_video(tmp_path / "a.avi", TRUTH, 1000)
        with pytest.warns(UserWarning, match="unbelievable frame rate of 1000"):
            assert read_video(path).fps == 50


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("avi", "mjpeg", "yuvj420p"),
        ("mkv", "ffv1", "gray"),
        ("webm", "libvpx", "yuv420p"),
        ("wmv", "wmv2", "yuv420p"),
        ("gif", "gif", "gray"),
        ("mp4", "libx264", "yuv420p"),
    ],
)
def test_files_that_were_cut_off_are_damaged_in_every_container(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w", format=CONTAINERS.get(suffix), options={"movflags": "faststart"}) as output:
        stream = output.add_stream(codec, rate=50)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for image in TRUTH:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pix_fmt)))
        output.mux(stream.encode())
    read_video(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    for read in (read_video, probe_video, lambda path: read_video(path, [29])):
        with pytest.raises(VideoReadError, match=r"damaged or cut off: only \d+ frames|no frame that can"):
            read(path)


def test_a_relative_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode_video(Path("plain.avi"), TRUTH, **BEST)
    check(Path("plain.avi").rename("12:30:05.avi"), TRUTH, 50)


def test_files_in_memory(tmp_path: Path) -> None:
    data = encode_video(tmp_path / "a.mkv", TRUTH, codec="ffv1", pix_fmt="gray").read_bytes()
    np.testing.assert_array_equal(read_video(io.BytesIO(data)).frames, TRUTH)
