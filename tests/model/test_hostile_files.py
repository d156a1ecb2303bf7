"""Files made to fill the memory: reading refuses them, or stays within its limits."""

from __future__ import annotations

import multiprocessing
import resource
import struct
import warnings
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate
from tests.model.test_dicom_reading_echomen import make_dataset, save

from echomen_hf import EchoMENVideoProcessor, VideoReadError, probe_video, read_video
from echomen_hf.model import dicom_reading_echomen as dicom
from helpers.avi_files import jpeg, write_avi
from helpers.video_files import encode_video


MEGABYTE = 2**20
OVERHEAD = 32 * MEGABYTE  # of decoders and of what has not been imported before


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _run(connection: Any, function: Callable[[], Any]) -> None:
    """Send what a function did, and how much memory it took above what this process had."""
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + 4 * 1024 * MEGABYTE,) * 2)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory("VmRSS")
    warnings.simplefilter("ignore")
    try:
        function()
        outcome = ""
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    connection.send((outcome, _memory("VmHWM") - before))
    connection.close()


def outcome_and_memory(function: Callable[[], Any]) -> tuple[str, int]:
    """Run a function in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory can be measured on Linux only")
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_run, args=(theirs, function))
    child.start()
    assert ours.poll(600)
    result = ours.recv()
    child.join()
    return result


def enlarged(image: bytes, side: int = 16000) -> bytes:
    """A JPEG image whose header states another size."""
    place = image.index(b"\xff\xc0") + 5
    return image[:place] + struct.pack(">2H", side, side) + image[place + 4 :]


SMALL = jpeg(np.zeros((48, 64), np.uint8))


def matroska(path: Path, images: list[bytes]) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mjpeg", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, image in enumerate(images):
            packet = av.Packet(image)
            packet.pts = packet.dts = number * 20
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
            output.mux(packet)
    return path


def large_first_frame(folder: Path) -> Path:
    return matroska(folder / "first.mkv", [enlarged(SMALL)] * 3)


def large_later_frame(folder: Path) -> Path:
    return matroska(folder / "later.mkv", [SMALL] * 9 + [enlarged(SMALL)] + [SMALL] * 9)


def large_frame_in_avi(folder: Path) -> Path:
    return write_avi(folder / "later.avi", [SMALL] * 9 + [enlarged(SMALL)], (48, 64))


def large_header_of_avi(folder: Path) -> Path:
    return write_avi(folder / "header.avi", [enlarged(SMALL)] * 9, (16000, 16000))


def large_gif(folder: Path) -> Path:
    path = encode_video(folder / "a.gif", np.zeros((3, 48, 64), np.uint8), codec="gif", pix_fmt="gray")
    data = path.read_bytes()
    path.write_bytes(data[:6] + struct.pack("<2H", 65535, 65535) + data[10:])
    return path


def many_promised_frames(folder: Path) -> Path:
    path = write_avi(folder / "a.avi", [SMALL] * 9, (48, 64))
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 32
    data[place : place + 4] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    return path


def jpeg_in_dicom(folder: Path) -> Path:
    data = make_dataset(np.zeros((3, 48, 64), np.uint8))
    data.PixelData = encapsulate([enlarged(SMALL)] * 3)
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return save(data, folder / "a.dcm")


def jpeg_2000_in_dicom(folder: Path) -> Path:
    data = make_dataset(np.zeros((3, 48, 64), np.uint8))
    data.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    data.PixelData = data.PixelData.replace(struct.pack(">2I", 64, 48), struct.pack(">2I", 30000, 30000))
    return save(data, folder / "a.dcm")


def wide_dicom(folder: Path) -> Path:
    data = make_dataset(np.zeros((3, 48, 64), np.uint8), Rows=1500, Columns=65500)
    return save(data, folder / "a.dcm")


def many_frames_in_dicom(folder: Path) -> Path:
    return save(make_dataset(np.zeros((3, 48, 64), np.uint8), NumberOfFrames=2**31 - 1), folder / "a.dcm")


def deflated_dicom(folder: Path) -> Path:
    data = make_dataset(np.zeros((3, 48, 64), np.uint8))
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    path = save(data, folder / "a.dcm")
    head = path.read_bytes()
    meta_end = 144 + int.from_bytes(head[140:144], "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [deflater.compress(bytes(MEGABYTE)) for _ in range(200)]
    path.write_bytes(b"".join([head[:meta_end], *parts, deflater.flush()]))
    return path


HOSTILE = [
    large_first_frame,
    large_later_frame,
    large_frame_in_avi,
    large_header_of_avi,
    large_gif,
    many_promised_frames,
    jpeg_in_dicom,
    jpeg_2000_in_dicom,
    wide_dicom,
    many_frames_in_dicom,
    deflated_dicom,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_large_contents_of_small_files_are_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "_MAX_INFLATED", 16 * MEGABYTE)
    path = make(tmp_path)
    assert path.stat().st_size < MEGABYTE
    reads = {
        "whole": lambda: read_video(path),
        "number": lambda: read_video(path, [2, 9]),
        "simplejpeg": lambda: read_video(path, decoder="simplejpeg"),
        "probe": lambda: probe_video(path),
    }
    for kind, read in reads.items():
        outcome, memory = outcome_and_memory(read)
        assert memory < OVERHEAD + 16 * MEGABYTE, (kind, outcome, memory / MEGABYTE)
        # An index does not tell the size of every image.
        if kind != "probe" or make not in (large_frame_in_avi, large_later_frame):
            assert outcome.startswith("VideoReadError"), (kind, outcome)
            assert path.name in outcome


@pytest.mark.parametrize("suffix", ["mp4", "mkv"], ids=["length is stated", "length is not stated"])
def test_decoded_frames_take_what_was_allowed(tmp_path: Path, suffix: str) -> None:
    frames = np.zeros((200, 480, 640), np.uint8)
    path = encode_video(tmp_path / f"a.{suffix}", frames, codec="mpeg4", pix_fmt="yuv420p")
    for limit, refused in ((frames.nbytes, False), (frames.nbytes // 2, True)):
        outcome, memory = outcome_and_memory(lambda limit=limit: read_video(path, max_bytes=limit))
        assert outcome.startswith("VideoReadError") == refused, outcome
        assert memory < 1.2 * limit + OVERHEAD, memory / MEGABYTE


def test_a_narrow_clip_is_not_enlarged_without_bounds(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 8, 4096), np.uint8)
    path = encode_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="gray")
    size = {"shortest_edge": 448}
    processor = EchoMENVideoProcessor(size=size, crop_size={"height": 448, "width": 448}, num_channels=1)
    outcome, memory = outcome_and_memory(lambda: processor(path, do_sample_frames=False, return_tensors="pt"))
    assert outcome == ""
    assert memory < 40 * 448 * 448 * (4 + 2 * 4 + 4) + OVERHEAD, memory / MEGABYTE


def test_errors_are_raised_as_ever_in_this_process(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match=r"first\.mkv"):
        read_video(large_first_frame(tmp_path))


def seeds(folder: Path) -> list[bytes]:
    """One small file of every kind that is read in a way of its own."""
    frames = np.random.default_rng(0).integers(0, 256, (8, 48, 64), np.uint8)
    kinds = [
        ("a.avi", "mjpeg", "yuvj420p"),
        ("b.avi", "mpeg4", "yuv420p"),
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "ffv1", "gray"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.gif", "gif", "gray"),
        ("a.wmv", "wmv2", "yuv420p"),
    ]
    files = [
        encode_video(folder / name, frames, codec=codec, pix_fmt=pix_fmt, container="asf" if "wmv" in name else None)
        for name, codec, pix_fmt in kinds
    ]
    for number, syntax in enumerate((uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless)):
        data = make_dataset(np.stack([frames] * 3, axis=-1), "RGB")
        if syntax.is_compressed:
            data.compress(syntax, generate_instance_uid=False)
        files.append(save(data, folder / f"{number}.dcm"))
    data = make_dataset(frames)
    data.PixelData = encapsulate([jpeg(frame) for frame in frames])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    files.append(save(data, folder / "jpeg.dcm"))
    return [file.read_bytes() for file in files]


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    """A file with a few bytes changed, most of them in its header, or with a part cut out."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 12)):
        reach = len(changed) if generator.random() < 0.4 else min(2000, len(changed))
        changed[generator.integers(reach)] = generator.integers(256)
    if generator.random() < 0.3:
        start = generator.integers(len(changed))
        del changed[start : start + generator.integers(1, len(changed))]
    return bytes(changed) or b"?"


def read_mutated(files: list[bytes], number: int) -> None:
    generator = np.random.default_rng(number)
    data = {"path": f"{number}.dcm", "bytes": mutated(files[number % len(files)], generator)}
    for read in (read_video, probe_video, lambda source: read_video(source, [1, 6], decoder="simplejpeg")):
        try:
            read(data)
        except VideoReadError as error:
            assert f"{number}.dcm" in str(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_thousands_of_mutated_files_raise_no_unnamed_error(tmp_path: Path) -> None:
    files = seeds(tmp_path)

    def read_all() -> None:
        for number in range(5000):
            try:
                read_mutated(files, number)
            except Exception as error:
                raise RuntimeError(f"file {number}") from error

    outcome, memory = outcome_and_memory(read_all)
    assert outcome == ""
    assert memory < 256 * MEGABYTE, memory / MEGABYTE
