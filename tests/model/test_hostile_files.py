"""Files made to fill the memory: reading refuses them, or stays within its limits."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from tests.model.test_dicom_reading_echomen import make_dataset, save

from echomen_hf import EchoMENVideoProcessor, VideoReadError, probe_video, read_video
from echomen_hf.model import dicom_header_echomen
from helpers.avi_files import jpeg, write_avi
from helpers.video_files import encode_images, encode_video, write_matroska


MEGABYTE = 2**20
OVERHEAD = 32 * MEGABYTE  # of decoders and of what has not been imported before
SLACK = 1.2  # of the limit, which decoders may use
UNTOUCHED = 8 * MEGABYTE  # of libraries, by a process that has run few other tests


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _run(connection: Any, function: Callable[[], Any], warm_up: Callable[[], Any]) -> None:
    """Send what a function did, and how much memory it took above what this process had."""
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + 4 * 1024 * MEGABYTE,) * 2)
    warnings.simplefilter("ignore")
    with suppress(VideoReadError):
        warm_up()
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)  # what the parent has freed must not serve the child unseen
    # Large blocks go back when they are freed, however large those were that the parent has freed (M_MMAP_THRESHOLD).
    libc.mallopt(-3, 128 * 1024)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _memory("VmRSS")
    try:
        function()
        outcome = ""
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    connection.send((outcome, _memory("VmHWM") - before))
    connection.close()


def outcome_and_memory(function: Callable[[], Any], warm_up: Callable[[], Any] = lambda: None) -> tuple[str, int]:
    """Run a function in a process of its own, after another that loads the same libraries."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory can be measured on Linux only")
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_run, args=(theirs, function, warm_up))
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


def large_first_frame(folder: Path) -> Path:
    return write_matroska(folder / "first.mkv", [enlarged(SMALL)] * 3, (48, 64))


def large_later_frame(folder: Path) -> Path:
    return write_matroska(folder / "later.mkv", [SMALL] * 9 + [enlarged(SMALL)] + [SMALL] * 9, (48, 64))


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


def late_start_of_avi(folder: Path) -> Path:
    path = many_promised_frames(folder)
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 20
    data[place : place + 12] = struct.pack("<3I", 1, 2**31 - 1, 2**31)  # scale, rate and start
    path.write_bytes(data)
    return path


def small_mp4(path: Path, **options: str) -> bytearray:
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream("mpeg4", rate=50)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(100):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64), np.uint8), format="gray")
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode())
    return bytearray(path.read_bytes())


def long_index_of_mp4(folder: Path) -> Path:
    path = folder / "a.mp4"
    data = small_mp4(path)
    for name, offset, numbers in ((b"stsz", 4, (1, 10**8)), (b"stsc", 12, (10**8,)), (b"stts", 8, (10**8,))):
        struct.pack_into(f">{len(numbers)}I", data, data.index(name) + 4 + offset, *numbers)
    path.write_bytes(data)
    return path


def long_fragment_of_mp4(folder: Path) -> Path:
    path = folder / "a.mp4"
    data = small_mp4(path, movflags="frag_keyframe+empty_moov")
    struct.pack_into(">2I", data, data.index(b"trun") + 4, 1, 10**8)
    path.write_bytes(data)
    return path


def many_edits_of_mp4(folder: Path) -> Path:
    path = folder / "a.mp4"
    data = small_mp4(path)
    place, count = data.index(b"elst"), 50_000
    data[place : place + 24] = b"elst" + struct.pack(">2I", 0, count) + bytes(data[place + 12 : place + 24]) * count
    for name in (b"moov", b"trak", b"edts", b"elst"):
        place = data.index(name) - 4
        (size,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, size + 12 * (count - 1))
    path.write_bytes(data)
    return path


def coded_dicom(path: Path, images: list[bytes], syntax: uid.UID, **elements: Any) -> Path:
    data = make_dataset(np.zeros((3, 48, 64), np.uint8), **elements)
    data.PixelData = encapsulate(images)
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return save(data, path)


def jpeg_in_dicom(folder: Path) -> Path:
    return coded_dicom(folder / "a.dcm", [enlarged(SMALL)] * 3, uid.JPEGBaseline8Bit)


def jpeg_ls_in_dicom(folder: Path) -> Path:
    image = b"\xff\xd8\xff\xf7\x00\x0b\x08" + struct.pack(">2H", 16000, 16000) + b"\x01\x01\x11\x00" + bytes(40)
    return coded_dicom(folder / "a.dcm", [image] * 3, uid.JPEGLSLossless)


def codestream() -> bytes:
    data = make_dataset(np.zeros((1, 48, 64), np.uint8))
    data.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    return next(generate_frames(data.PixelData, number_of_frames=1))


def jpeg_2000_in_dicom(folder: Path) -> Path:
    image = codestream().replace(struct.pack(">2I", 64, 48), struct.pack(">2I", 30000, 30000))
    return coded_dicom(folder / "a.dcm", [image] * 3, uid.JPEG2000Lossless)


def jpeg_2000_behind_a_small_one(folder: Path) -> Path:
    small = codestream()
    large = small.replace(struct.pack(">2I", 64, 48), struct.pack(">2I", 30000, 30000))
    boxes = [struct.pack(">I", 8 + len(data)) + name + data for name, data in ((b"uuid", small), (b"jp2c", large))]
    return coded_dicom(folder / "a.dcm", [b"".join(boxes)] * 3, uid.JPEG2000Lossless)


def jpeg_2000_of_many_colours(folder: Path) -> Path:
    image = bytearray(codestream())
    place = image.index(b"\xff\x51")
    image[place + 2 : place + 4] = struct.pack(">H", 38 + 3 * 16384)
    image[place + 38 : place + 43] = struct.pack(">H", 16384) + bytes([7, 1, 1]) * 16384
    return coded_dicom(folder / "a.dcm", [bytes(image)] * 3, uid.JPEG2000Lossless)


def runs_in_dicom(folder: Path) -> Path:
    runs = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 150_000  # 128 times the same value
    return coded_dicom(folder / "a.dcm", [runs] * 3, uid.RLELossless)


def runs_of_large_frames(folder: Path) -> Path:
    runs = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 450_000
    return coded_dicom(folder / "a.dcm", [runs], uid.RLELossless, Rows=1000, Columns=1000, NumberOfFrames=1)


def many_values_a_pixel(folder: Path) -> Path:
    return coded_dicom(folder / "a.dcm", [SMALL] * 3, uid.JPEGBaseline8Bit, SamplesPerPixel=65535)


def many_fragments(folder: Path) -> Path:
    path = coded_dicom(folder / "a.dcm", [SMALL], uid.JPEGBaseline8Bit, NumberOfFrames=100_000)
    data = path.read_bytes()
    item = b"\xfe\xff\x00\xe0"
    path.write_bytes(data[: data.index(item)] + (item + bytes(4)) * 100_000)
    return path


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
    late_start_of_avi,
    long_index_of_mp4,
    long_fragment_of_mp4,
    many_edits_of_mp4,
    jpeg_in_dicom,
    jpeg_ls_in_dicom,
    jpeg_2000_in_dicom,
    jpeg_2000_behind_a_small_one,
    jpeg_2000_of_many_colours,
    runs_in_dicom,
    runs_of_large_frames,
    many_values_a_pixel,
    many_fragments,
    wide_dicom,
    many_frames_in_dicom,
    deflated_dicom,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_large_contents_of_small_files_are_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_header_echomen, "_MAX_INFLATED", 16 * MEGABYTE)
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


def test_a_header_of_a_million_elements_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(8 * MEGABYTE))
    for read in (read_video, probe_video):
        with pytest.raises(VideoReadError, match="a.dcm: is not a readable DICOM file"):
            read(path)


def pictures(num_frames: int = 170, height: int = 720, width: int = 1024) -> np.ndarray:
    return np.zeros((num_frames, height, width), np.uint8)


def encoded(path: Path, **size: int) -> Path:
    return encode_video(path, pictures(**size), codec="mpeg4", pix_fmt="yuv420p")


def many_small_frames(folder: Path) -> Path:
    return encoded(folder / "a.mp4")


def many_frames_of_unknown_number(folder: Path) -> Path:
    return encoded(folder / "a.mkv")


def many_large_frames(folder: Path) -> Path:
    return encode_video(folder / "a.gif", pictures(480, 512, 512), codec="gif", pix_fmt="gray")


def many_references(folder: Path) -> Path:
    options = {"refs": "16", "bf": "16", "preset": "ultrafast"}
    return encode_video(folder / "a.mp4", pictures(480, 512, 512), codec="libx264", pix_fmt="yuv420p", **options)


def frames_at_odd_times(folder: Path) -> Path:
    moments = np.cumsum(np.random.default_rng(0).integers(10, 60, 170)).tolist()
    frames = encode_images(pictures(), "mpeg4", g="1")
    return write_matroska(folder / "a.mkv", frames, (720, 1024), codec="mpeg4", moments=moments)


def held_frames(folder: Path) -> Path:
    images = [jpeg(frame) for frame in pictures(2)]
    return write_avi(folder / "a.avi", [images[0], *[b""] * 168, images[1]], (720, 1024))


def pixels_become_square(folder: Path) -> Path:
    images = [jpeg(frame, dpi=(100, 50)) for frame in pictures(1, 256, 512)]
    return write_avi(folder / "a.avi", images * 480, (256, 512))


def native_dicom(folder: Path) -> Path:
    return save(make_dataset(np.zeros((400, 360, 512, 3), np.uint8), "RGB"), folder / "a.dcm")


def dark_dicom(folder: Path) -> Path:
    return save(make_dataset(np.ones((600, 360, 512), np.uint16)), folder / "a.dcm")


def deflated_clip(folder: Path) -> Path:
    data = make_dataset(pictures())
    data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return save(data, folder / "a.dcm")


def odd_times_in_dicom(folder: Path) -> Path:
    times = np.random.default_rng(0).integers(10, 60, 170).tolist()
    data = make_dataset(pictures(), FrameTimeVector=times, FrameIncrementPointer=0x00181065)
    return save(data, folder / "a.dcm")


def runs_of_a_clip(folder: Path) -> Path:
    data = make_dataset(pictures(300, 360, 512))
    data.compress(uid.RLELossless, generate_instance_uid=False)
    return save(data, folder / "a.dcm")


def large_jpegs_in_dicom(folder: Path) -> Path:
    image = jpeg(np.zeros((360, 512, 3), np.uint8))
    size = {"Rows": 360, "Columns": 512, "NumberOfFrames": 300}
    data = make_dataset(np.zeros((3, 48, 64, 3), np.uint8), "YBR_FULL_422", **size)
    data.PixelData = encapsulate([image] * 300)
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return save(data, folder / "a.dcm")


def stream_in_dicom(folder: Path) -> Path:
    """A video of few bytes among many that say nothing."""
    stream = encoded(folder / "stream.mp4").read_bytes()
    filler = struct.pack(">I", 80 * MEGABYTE) + b"free" + bytes(80 * MEGABYTE - 8)
    data = make_dataset(np.zeros((3, 48, 64, 3), np.uint8), "YBR_PARTIAL_420", Rows=720, Columns=1024)
    data.NumberOfFrames = 170
    data.PixelData = encapsulate([stream + filler])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    return save(data, folder / "a.dcm")


WHOLE_FRAME, SMALL_FRAME = 720 * 1024, 360 * 512  # pixels of a frame
LARGE = [
    (many_small_frames, 170 * WHOLE_FRAME),
    (many_frames_of_unknown_number, 170 * WHOLE_FRAME),
    (many_large_frames, 480 * 2**18),
    (many_references, 480 * 2**18),
    (frames_at_odd_times, 170 * WHOLE_FRAME),
    (held_frames, 170 * WHOLE_FRAME),
    (pixels_become_square, 480 * 2**18),
    (native_dicom, 400 * SMALL_FRAME),
    (dark_dicom, 600 * SMALL_FRAME),
    (deflated_clip, 2 * 170 * WHOLE_FRAME + 2000),
    (odd_times_in_dicom, 170 * WHOLE_FRAME),
    (runs_of_a_clip, 300 * SMALL_FRAME),
    (large_jpegs_in_dicom, 300 * SMALL_FRAME),
    (stream_in_dicom, 170 * WHOLE_FRAME),
]


@pytest.mark.parametrize(("make", "needed"), LARGE, ids=lambda value: getattr(value, "__name__", ""))
def test_reading_takes_hardly_more_than_it_may(tmp_path: Path, make: Callable[[Path], Path], needed: int) -> None:
    path = make(tmp_path)
    outcome, memory = outcome_and_memory(
        lambda: read_video(path, max_bytes=needed), lambda: read_video(path, max_bytes=2 * WHOLE_FRAME)
    )
    assert outcome == ""
    assert memory <= SLACK * needed + UNTOUCHED, memory / MEGABYTE
    # What is refused has taken no more.
    outcome, memory = outcome_and_memory(lambda: read_video(path, max_bytes=needed * 3 // 4))
    assert outcome.startswith("VideoReadError"), outcome
    assert "bytes" in outcome
    assert memory <= SLACK * needed + UNTOUCHED, memory / MEGABYTE


def test_images_of_pillow_are_checked_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (12000, 12000)).save(path)
    assert path.stat().st_size < MEGABYTE
    processor = EchoMENVideoProcessor()
    outcome, memory = outcome_and_memory(lambda: processor([Image.open(path) for _ in range(9)]))
    assert outcome.startswith("VideoReadError: image: has frames of 12000 x 12000 pixels")
    assert memory <= OVERHEAD, memory / MEGABYTE


def test_a_narrow_clip_is_not_enlarged_without_bounds(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 8, 4096), np.uint8)
    path = encode_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="gray")
    size = {"shortest_edge": 448}
    processor = EchoMENVideoProcessor(size=size, crop_size={"height": 448, "width": 448}, num_channels=1)
    small = encode_video(tmp_path / "b.mkv", frames[:2, :, :64], codec="ffv1", pix_fmt="gray")
    outcome, memory = outcome_and_memory(
        lambda: processor(path, do_sample_frames=False, return_tensors="pt"),
        warm_up=lambda: processor(small, do_sample_frames=False, return_tensors="pt"),
    )
    assert outcome == ""
    assert memory < SLACK * 40 * 448 * 448 * (4 + 2 * 4 + 4) + OVERHEAD, memory / MEGABYTE


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
