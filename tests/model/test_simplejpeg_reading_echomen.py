from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echomen_hf.model import video_reading_echomen as video_reader
from echomen_hf.model.mjpeg_avi_echomen import read_avi_index
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.model.video_source_echomen import VideoReadError, resolve_source
from helpers.video_files import beating_texture


Writer = Callable[..., Path]


@pytest.fixture
def path(tmp_path: Path, write_video: Writer) -> Path:
    return write_video(tmp_path / "clip.avi", beating_texture(20), qmin="2", qmax="2")


@pytest.fixture
def without_pyav_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only simplejpeg decodes: a test that passes was not served by PyAV in its place."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("PyAV was asked to decode")

    monkeypatch.setattr(video_reader, "decode_container", refuse)


class TestGrayClips:
    def test_differ_by_one_grey_level_from_pyav(self, path: Path, request: pytest.FixtureRequest) -> None:
        expected = read_video(path)
        request.getfixturevalue("without_pyav_decoding")
        video = read_video(path, decoder="simplejpeg")
        assert video.frames.dtype == np.uint8
        assert (video.fps, video.source, video.coloured_share) == (expected.fps, expected.source, 0)
        difference = np.abs(video.frames.astype(int) - expected.frames)  # shapes must agree for this, too
        assert difference.max() <= 1
        assert difference.mean() < 0.05
        assert np.abs(np.diff(expected.frames.astype(int), axis=0)).mean() > 10  # a frame off would be seen

    def test_of_echonet(self, echonet_dir: Path, without_pyav_decoding: None) -> None:
        path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        assert read_video(path, [0, 9, 20], decoder="simplejpeg").frames.shape == (3, 112, 112)

    def test_wanted_frames_are_those_of_the_whole_clip(self, path: Path, without_pyav_decoding: None) -> None:
        whole = read_video(path, decoder="simplejpeg").frames
        assert len(whole) == 20
        for indices in ([7, 0, 11, 11, 3], [19], list(range(1, 20))):
            np.testing.assert_array_equal(read_video(path, indices, decoder="simplejpeg").frames, whole[indices])

    def test_bytes_and_open_files_are_read_like_paths(self, path: Path, without_pyav_decoding: None) -> None:
        expected, data = read_video(path, [3, 12], decoder="simplejpeg").frames, path.read_bytes()
        for source in (data, io.BytesIO(data), {"path": None, "bytes": data}):
            np.testing.assert_array_equal(read_video(source, [3, 12], decoder="simplejpeg").frames, expected)

    def test_frames_that_do_not_exist_are_refused(self, path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"clip\.avi: has 20 frames, but frame 20 was asked for"):
            read_video(path, [0, 20], decoder="simplejpeg")

    def test_too_large_a_clip_is_refused(self, path: Path) -> None:
        with pytest.raises(VideoReadError, match=r"clip\.avi: holds more than 9999 bytes"):
            read_video(path, decoder="simplejpeg", max_bytes=9999)

    def test_without_colour_planes(self, tmp_path: Path, path: Path, without_pyav_decoding: None) -> None:
        """As OpenCV writes them: JPEG images of one component."""
        simplejpeg = pytest.importorskip("simplejpeg")
        frames = read_video(path, decoder="simplejpeg").frames
        images = [simplejpeg.encode_jpeg(frame[..., None].copy(), quality=98, colorspace="GRAY") for frame in frames]
        gray = tmp_path / "gray.avi"
        gray.write_bytes(with_images(path, images))
        video = read_video(gray, decoder="simplejpeg")
        assert np.abs(video.frames.astype(int) - frames).mean() < 1


def with_images(path: Path, images: list[bytes]) -> bytes:
    """A copy of an AVI file with other images in the place of its own."""
    data = bytearray(path.read_bytes())
    avi = read_avi_index(resolve_source(path))
    assert avi is not None
    body, entries = bytearray(b"movi"), bytearray()
    for image in images:
        entries += b"00dc" + b"".join(n.to_bytes(4, "little") for n in (16, len(body), len(image)))
        body += b"00dc" + len(image).to_bytes(4, "little") + image + b"\0" * (len(image) % 2)
    start = data.index(b"movi") - 8
    index = b"idx1" + len(entries).to_bytes(4, "little") + entries
    return bytes(data[:start] + b"LIST" + len(body).to_bytes(4, "little") + body + index)


class TestColour:
    @pytest.fixture
    def doppler(self, tmp_path: Path, write_video: Writer) -> Path:
        frames = np.repeat(beating_texture(6)[..., None], 3, axis=-1)  # (6, 48, 64, 3)
        frames[:, 10:40, 10:40] = [200, 30, 30]
        return write_video(tmp_path / "doppler.avi", frames, source_format="rgb24", qmin="2", qmax="2")

    def test_is_left_to_pyav(self, doppler: Path) -> None:
        expected, video = read_video(doppler), read_video(doppler, decoder="simplejpeg")
        np.testing.assert_array_equal(video.frames, expected.frames)
        assert video.coloured_share == expected.coloured_share > 0.1

    def test_does_not_matter_to_luma(self, doppler: Path, request: pytest.FixtureRequest) -> None:
        expected = read_video(doppler, measure_colour=False)
        assert np.isnan(expected.coloured_share)
        assert not expected.is_coloured
        request.getfixturevalue("without_pyav_decoding")
        video = read_video(doppler, decoder="simplejpeg", measure_colour=False)
        assert np.abs(video.frames.astype(int) - expected.frames).max() <= 1
        assert np.isnan(video.coloured_share)


class TestWhatIsLeftToPyAV:
    def check(self, path: Path, indices: list[int]) -> None:
        expected = read_video(path, indices).frames
        np.testing.assert_array_equal(read_video(path, indices, decoder="simplejpeg").frames, expected)

    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt"), [("clip.avi", "mpeg4", "yuv420p"), ("clip.mkv", "mjpeg", "yuvj420p")]
    )
    def test_other_codecs_and_containers(
        self, tmp_path: Path, write_video: Writer, name: str, codec: str, pix_fmt: str
    ) -> None:
        self.check(write_video(tmp_path / name, beating_texture(6), codec=codec, pix_fmt=pix_fmt), [4, 2])

    def test_limited_range(self, tmp_path: Path, path: Path) -> None:
        avi = read_avi_index(resolve_source(path))
        assert avi is not None
        data = path.read_bytes()
        images = [data[int(o) + 8 : int(o) + 8 + int(s)] for o, s in zip(avi.offsets, avi.sizes)]
        comment = b"\xff\xfe\x00\x0cCS=ITU601\0"
        limited = tmp_path / "limited.avi"
        limited.write_bytes(with_images(path, [image[:2] + comment + image[2:] for image in images]))
        self.check(limited, [4, 2])
        full = read_video(path, [4, 2]).frames
        assert read_video(limited, [4, 2]).frames.std() > 1.1 * full.std()

    def test_images_of_another_size_than_the_header_has(self, tmp_path: Path, path: Path) -> None:
        """As those of an interlaced clip, two of which make a frame."""
        data = bytearray(path.read_bytes())
        place = data.index(b"strf") + 16
        assert int.from_bytes(data[place : place + 4], "little") == 48
        data[place : place + 4] = (96).to_bytes(4, "little")
        taller = tmp_path / "taller.avi"
        taller.write_bytes(data)
        for decoder in ("pyav", "simplejpeg"):  # fields without their second halves
            with pytest.raises(VideoReadError, match="no frame that can be decoded"):
                read_video(taller, [4, 2], decoder=decoder)

    def test_damaged_images(self, path: Path) -> None:
        avi = read_avi_index(resolve_source(path))
        assert avi is not None
        data = bytearray(path.read_bytes())
        start, size = int(avi.offsets[4]) + 8, int(avi.sizes[4])
        data[start : start + size] = bytes(size)
        path.write_bytes(data)
        close = np.abs(
            read_video(path, [3, 5], decoder="simplejpeg").frames.astype(int) - read_video(path, [3, 5]).frames
        )
        assert close.max() <= 1
        with pytest.raises(VideoReadError, match="is damaged"):
            read_video(path, [4], decoder="simplejpeg")

    def test_files_that_were_cut_off(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(VideoReadError, match=r"is damaged or cut off: only \d+ frames of the 20"):
            read_video(path, decoder="simplejpeg")


def test_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(VideoReadError, match=r"simplejpeg: is not installed; pip install 'echomen-hf\[simplejpeg"):
        read_video(path, decoder="simplejpeg")
    assert read_video(path).num_frames == 20


def test_unknown_decoder(path: Path) -> None:
    with pytest.raises(ValueError, match="decoder must be one of pyav, simplejpeg, got 'opencv'"):
        read_video(path, decoder="opencv")
