"""Pixels, rate and length of DICOM files in every form that an export may give them."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_file_meta_info
from tests.model.test_dicom_reading_echomen import WHOLE_IMAGE, make_dataset, region, save

from echomen_hf import VideoReadError, probe_video, read_video
from echomen_hf.data.validation import validate_videos
from echomen_hf.model.dicom_reading_echomen import probe_dicom, read_dicom
from helpers.avi_files import jpeg
from helpers.video_files import encode_video


Frames = NDArray[np.uint8]


@pytest.fixture
def truth() -> Frames:
    time, rows, columns = np.ogrid[:6, :40, :60]
    pattern = 125 + 90 * np.sin(rows / 6 + time / 3) * np.cos(columns / 9 - time / 4)
    noise = np.random.default_rng(0).normal(0, 2, (6, 40, 60))
    return np.clip(pattern + noise, 0, 255).astype(np.uint8)


def check(path: Path, expected: NDArray[Any], tolerance: int = 0) -> None:
    """Compare the whole file, frames by number and the probe with the known frames."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = read_dicom(path, **WHOLE_IMAGE)
        assert whole.frames.shape == expected.shape
        assert np.abs(whole.frames.astype(int) - expected.astype(int)).max() <= tolerance
        for indices in ([0, 1, 2, 3], [5, 2, 2], [4]):
            np.testing.assert_array_equal(read_dicom(path, indices, **WHOLE_IMAGE).frames, whole.frames[indices])
        info = probe_dicom(path, **WHOLE_IMAGE)
    assert (info.num_frames, info.height, info.width, info.fps) == (*whole.frames.shape, whole.fps)


def stretched(values: NDArray[Any]) -> Frames:
    """Grey levels from the darkest to the brightest pixel of a loop."""
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / (high - low))).astype(np.uint8)


def three(frames: Frames) -> Frames:
    return np.stack([frames] * 3, axis=-1)


def gray_ybr(frames: Frames) -> Frames:
    return np.stack([frames, np.full_like(frames, 128), np.full_like(frames, 128)], axis=-1)


def save_big_endian(data: FileDataset, path: Path) -> Path:
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    plain = Dataset({element.tag: element for element in data})
    plain.file_meta, plain.preamble = data.file_meta, bytes(128)
    pydicom.dcmwrite(path, plain, enforce_file_format=True)
    return path


def encapsulated(dataset: FileDataset, images: list[bytes], syntax: uid.UID, **options: Any) -> FileDataset:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(images, **options)
    dataset["PixelData"].is_undefined_length = True
    return dataset


class TestNative:
    def test_subsampled_colour(self, tmp_path: Path, truth: Frames) -> None:
        packed = np.full((6, 40, 30, 4), 128, np.uint8)  # Y1 Y2 Cb Cr
        packed[..., 0], packed[..., 1] = truth[:, :, 0::2], truth[:, :, 1::2]
        data = make_dataset(three(truth), "YBR_FULL_422", PixelData=packed.tobytes())
        check(save(data, tmp_path / "a.dcm"), truth)
        # The same label over colour for every pixel, which is a common mistake.
        path = save(make_dataset(gray_ybr(truth), "YBR_FULL_422"), tmp_path / "b.dcm")
        check(path, truth)
        path.write_bytes(path.read_bytes()[: -40 * 60 * 3 - 9])
        with pytest.raises(VideoReadError, match="only 4 frames of the 6"):
            read_video(path)

    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
    @pytest.mark.parametrize("planar", [0, 1])
    @pytest.mark.parametrize("stored", [three, gray_ybr])
    def test_label_of_another_colour_space(
        self, tmp_path: Path, truth: Frames, label: str, planar: int, stored: Any
    ) -> None:
        pixels = stored(truth)
        data = make_dataset(pixels, label, PlanarConfiguration=planar)
        data.PixelData = (np.moveaxis(pixels, -1, 1) if planar else pixels).tobytes()
        check(save(data, tmp_path / "a.dcm"), truth)

    def test_bits_that_are_not_stored(self, tmp_path: Path, truth: Frames) -> None:
        words = truth.astype(np.uint16) * 16 + 7  # 12 bits, 16 times the 8-bit value
        expected = stretched(words)
        for high, pixels in ((11, words | 0xA000), (15, words << 4 | 0x5)):
            data = make_dataset(pixels.astype(np.uint16), BitsStored=12, HighBit=high)
            check(save(data, tmp_path / "a.dcm"), expected)
        signed = (words.astype(np.int32) - 2048).astype(np.int16) & 0x0FFF  # the sign is bit 11
        data = make_dataset(signed.astype(np.int16), BitsStored=12, HighBit=11)
        check(save(data, tmp_path / "a.dcm"), expected)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize("columns", [60, 59])
    def test_big_endian(self, tmp_path: Path, truth: Frames, bits: int, columns: int) -> None:
        frames = truth[:, :39, :columns]
        pixels = frames.astype(f"u{bits // 8}") * (257 if bits == 16 else 1)
        data = make_dataset(pixels)
        raw = pixels.tobytes() + b"\0" * (pixels.size * bits // 8 % 2)
        data.PixelData = np.frombuffer(raw, "<u2").byteswap().tobytes()
        data["PixelData"].VR = "OW"
        check(save_big_endian(data, tmp_path / "a.dcm"), stretched(frames) if bits == 16 else frames)

    def test_one_bit(self, tmp_path: Path, truth: Frames) -> None:
        bits = truth[:, :39, :59] > 125  # frames do not end with a byte
        data = make_dataset(truth[:, :39, :59], BitsAllocated=1, BitsStored=1, HighBit=0)
        data.PixelData = np.packbits(bits, bitorder="little").tobytes()
        check(save(data, tmp_path / "a.dcm"), bits * 255)

    def test_monochrome1(self, tmp_path: Path, truth: Frames) -> None:
        check(save(make_dataset(255 - truth, "MONOCHROME1"), tmp_path / "a.dcm"), truth)

    def test_pixels_that_are_not_square(self, tmp_path: Path, truth: Frames) -> None:
        narrow = np.ascontiguousarray(truth[:, :, ::2])
        for keyword, value in (("PixelAspectRatio", [1, 2]), ("PixelSpacing", [0.1, 0.2])):
            path = save(make_dataset(narrow, **{keyword: value}), tmp_path / "a.dcm")
            video = read_dicom(path, **WHOLE_IMAGE)
            assert video.frames.shape == truth.shape
            assert np.abs(video.frames.astype(int) - truth).mean() < 8
            info = probe_dicom(path, margin=0.0)
            assert (info.height, info.width) == read_dicom(path, margin=0.0).frames.shape[1:] == (40, 40)

    @pytest.mark.parametrize("crop_region", [True, False])
    @pytest.mark.parametrize(
        ("elements", "aspect", "mm_per_pixel"),
        [
            ({"PhysicalDeltaX": 0.04, "PhysicalDeltaY": -0.02}, 2, 0.2),
            ({"PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.02}, 1, 0.2),
            ({"PhysicalDeltaX": 0.04, "PhysicalDeltaY": 0.02, "PhysicalUnitsXDirection": 4}, 1, None),  # seconds
            ({"PhysicalDeltaX": 0.04, "PhysicalDeltaY": 0.02, "RegionDataType": 3}, 1, None),  # Doppler
            ({"PhysicalDeltaX": 0.04, "PhysicalDeltaY": 0}, 1, None),
            ({"PhysicalDeltaX": 0.04}, 1, None),
            ({"PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.02, "image": {"PixelSpacing": [0.3, 0.3]}}, 1, 0.2),
            ({"image": {"PixelSpacing": [0.3, 0.6]}}, 2, 0.3),
            ({"image": {"PixelSpacing": [0.0003, 0.0003]}}, 1, None),  # metres
            ({"PhysicalDeltaX": 0.04, "PhysicalDeltaY": 0.02, "image": {"PixelAspectRatio": [1, 1]}}, 1, None),
        ],
        ids=str,
    )
    def test_the_region_tells_shape_and_size_of_pixels(
        self,
        tmp_path: Path,
        truth: Frames,
        elements: dict[str, Any],
        aspect: int,
        mm_per_pixel: float | None,
        crop_region: bool,
    ) -> None:
        place = region(0, 0, 29, 39)
        place.PhysicalUnitsXDirection = place.PhysicalUnitsYDirection = 3
        for keyword, value in elements.items():
            if keyword != "image":
                setattr(place, keyword, value)
        narrow = np.ascontiguousarray(truth[:, :, ::2])  # (6, 40, 30)
        data = make_dataset(narrow, SequenceOfUltrasoundRegions=[place], **elements.get("image", {}))
        path = save(data, tmp_path / "a.dcm")
        options = {"crop_region": crop_region, "margin": 0.0, "square": False}
        video, info = read_dicom(path, **options), probe_dicom(path, **options)
        assert video.frames.shape == (6, 40, 30 * aspect) == (info.num_frames, info.height, info.width)
        assert video.mm_per_pixel == (mm_per_pixel and pytest.approx(mm_per_pixel))
        if aspect == 2:
            assert np.abs(video.frames.astype(int) - truth).mean() < 8
        np.testing.assert_array_equal(read_dicom(path, [4], **options).frames[0], video.frames[4])


class TestLookUpTables:
    @pytest.mark.parametrize("form", ["words", "bytes", "8 bits in words", "8 bits in upper halves", "8 bits as 16"])
    @pytest.mark.parametrize("little", [True, False])
    def test_palettes(self, tmp_path: Path, truth: Frames, form: str, little: bool) -> None:
        levels = np.arange(256)[::-1]
        entries = {
            "words": levels * 257,
            "8 bits in words": levels,
            "8 bits in upper halves": levels << 8,
            "8 bits as 16": levels,
        }
        if form == "bytes":
            table = levels.astype(np.uint8).tobytes()
            table = table if little else np.frombuffer(table, "<u2").byteswap().tobytes()
        else:
            table = entries[form].astype("<u2" if little else ">u2").tobytes()
        data = make_dataset(255 - truth, "PALETTE COLOR")
        for colour in ("Red", "Green", "Blue"):
            bits = 16 if form in ("words", "8 bits as 16") else 8
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(data, f"{colour}PaletteColorLookupTableData", table)
        check((save if little else save_big_endian)(data, tmp_path / "a.dcm"), truth)

    @pytest.mark.parametrize("bits", [8, 16])
    def test_segmented_palettes(self, tmp_path: Path, truth: Frames, bits: int) -> None:
        # One value, a line up to 100, then the same two segments again, then one down.
        white = 255 if bits == 8 else 65535
        words = [0, 1, 0, 1, 99, 100 * white // 255, 2, 2, *([0] * (4 if bits == 8 else 2)), 1, 56, 0]
        table = np.array(words, np.uint8 if bits == 8 else "<u2").tobytes()
        data = make_dataset(truth, "PALETTE COLOR")
        for colour in ("Red", "Green", "Blue"):
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
            setattr(data, f"Segmented{colour}PaletteColorLookupTableData", table + b"\0" * (len(table) % 2))
        once = np.concatenate([[0], np.linspace(0, 100, 100)[1:]])
        expected = np.concatenate([once, once, np.linspace(100, 0, 57)[1:]])
        check(save(data, tmp_path / "a.dcm"), np.rint(expected)[truth], tolerance=1)

    def test_palette_that_does_not_begin_at_zero(self, tmp_path: Path, truth: Frames) -> None:
        data = make_dataset(truth, "PALETTE COLOR")
        for colour in ("Red", "Green", "Blue"):
            setattr(data, f"{colour}PaletteColorLookupTableDescriptor", [100, 50, 16])
            setattr(data, f"{colour}PaletteColorLookupTableData", (np.arange(100) * 512).astype("<u2").tobytes())
        check(save(data, tmp_path / "a.dcm"), np.rint(np.clip(truth.astype(int) - 50, 0, 99) * 512 / 257), 1)

    @pytest.mark.parametrize("raw", [True, False])
    def test_voi_and_modality_tables(self, tmp_path: Path, truth: Frames, raw: bool) -> None:
        words = truth.astype(np.uint16) * 16  # 12 bits

        def item(entries: NDArray[Any], first: int, bits: int) -> Dataset:
            table = Dataset()
            table.LUTDescriptor = [len(entries), first, bits]
            table.add_new(
                "LUTData", "OW" if raw else "US", entries.astype("<u2").tobytes() if raw else entries.tolist()
            )
            return table

        inverted = item(np.arange(4096)[::-1], 0, 12)
        data = make_dataset(words, BitsStored=12, HighBit=11, VOILUTSequence=[inverted], WindowCenter=1, WindowWidth=2)
        check(save(data, tmp_path / "a.dcm"), np.rint((4095 - words.astype(int)) * (255 / 4095)))
        data.ModalityLUTSequence = [item(np.arange(4096) // 2, 0, 16)]
        check(save(data, tmp_path / "b.dcm"), np.rint((4095 - words.astype(int) // 2) * (255 / 4095)))

    @pytest.mark.parametrize("window", [{}, {"WindowCenter": None, "WindowWidth": None}, {"WindowWidth": 0}])
    def test_windows_that_are_missing(self, tmp_path: Path, truth: Frames, window: dict[str, Any]) -> None:
        words = truth.astype(np.uint16) * 257
        check(save(make_dataset(words, **window), tmp_path / "a.dcm"), stretched(truth))

    @pytest.mark.parametrize("slope", [1, -2])
    @pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32])
    def test_a_loop_that_uses_few_of_its_levels_is_not_dark(
        self, tmp_path: Path, truth: Frames, slope: int, dtype: type
    ) -> None:
        words = (truth * np.linspace(0.5, 2, len(truth))[:, None, None]).astype(dtype)  # brighter from frame to frame
        elements = {} if slope == 1 else {"RescaleSlope": slope, "RescaleIntercept": 40}
        path = save(make_dataset(words, **elements), tmp_path / "a.dcm")
        check(path, stretched(slope * words.astype(int)))
        for read in (read_dicom, lambda path: read_dicom(path, [0])):
            with pytest.warns(UserWarning, match=r"a\.dcm: stores \d+ bits a pixel and names no window"):
                read(path)


class TestCompressed:
    @pytest.mark.parametrize("marker", ["JFIF", "none", "Adobe 1"])
    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL_422"])
    def test_jpeg_of_ycbcr_whatever_its_label(self, tmp_path: Path, truth: Frames, marker: str, label: str) -> None:
        images = [jpeg(frame, subsampling=0) for frame in three(truth)]
        if marker != "JFIF":
            adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" if marker == "Adobe 1" else b""
            images = [data[:2] + adobe + data[4 + int.from_bytes(data[4:6], "big") :] for data in images]
        data = encapsulated(make_dataset(three(truth), label), images, uid.JPEGBaseline8Bit)
        check(save(data, tmp_path / "a.dcm"), truth, tolerance=6)

    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    def test_jpeg_of_rgb_whatever_its_label(self, tmp_path: Path, truth: Frames, label: str) -> None:
        images = [jpeg(frame, keep_rgb=True) for frame in three(truth)]
        data = encapsulated(make_dataset(three(truth), label), images, uid.JPEGBaseline8Bit)
        check(save(data, tmp_path / "a.dcm"), truth, tolerance=6)

    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless])
    @pytest.mark.parametrize("stored", [three, gray_ybr])
    @pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
    def test_lossless_colour(self, tmp_path: Path, truth: Frames, syntax: uid.UID, stored: Any, label: str) -> None:
        data = make_dataset(stored(truth), label)
        try:
            data.compress(syntax, generate_instance_uid=False)
        except (RuntimeError, ValueError) as error:
            pytest.skip(f"cannot be written here: {error}")
        check(save(data, tmp_path / "a.dcm"), truth)

    @pytest.mark.parametrize("has_offsets", [True, False])
    def test_frames_of_several_fragments(self, tmp_path: Path, truth: Frames, has_offsets: bool) -> None:
        images = [jpeg(frame) for frame in truth]
        data = encapsulated(
            make_dataset(truth), images, uid.JPEGBaseline8Bit, fragments_per_frame=3, has_bot=has_offsets
        )
        check(save(data, tmp_path / "a.dcm"), truth, tolerance=8)

    @pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSLossless])
    def test_an_image_of_another_size_is_refused_before_it_is_decoded(
        self, tmp_path: Path, truth: Frames, syntax: uid.UID, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buffer = io.BytesIO()
        Image.new("L", (6000, 6000)).save(buffer, "JPEG" if syntax == uid.JPEGBaseline8Bit else "JPEG2000", quality=1)
        image = buffer.getvalue()
        if syntax == uid.JPEGLSLossless:
            image = b"\xff\xd8\xff\xf7\x00\x0b\x08" + struct.pack(">2H", 6000, 6000) + bytes(40)
        data = encapsulated(make_dataset(truth), [image] * 6, syntax)
        path = save(data, tmp_path / "a.dcm")
        with pytest.raises(VideoReadError, match=r"an image of \(6000, 6000\) pixels where"):
            read_video(path)


class TestLength:
    def test_native_data_that_were_cut_off(self, tmp_path: Path, truth: Frames) -> None:
        path = save(make_dataset(truth), tmp_path / "a.dcm")
        path.write_bytes(path.read_bytes()[: -int(2.5 * 40 * 60)])
        for read in (read_video, probe_video, lambda path: read_video(path, [5])):
            with pytest.raises(VideoReadError, match=r"a\.dcm: is damaged or cut off: only 3 frames of the 6"):
                read(path)
        np.testing.assert_array_equal(read_dicom(path, [2, 0], **WHOLE_IMAGE).frames, truth[[2, 0]])
        with pytest.warns(UserWarning, match="only 3 frames of the 6.*using what is there"):
            assert read_dicom(path, allow_truncated=True).num_frames == 3

    def test_the_last_fragment_is_not_whole(self, tmp_path: Path, truth: Frames) -> None:
        data = encapsulated(make_dataset(truth), [jpeg(frame) for frame in truth], uid.JPEGBaseline8Bit)
        path = save(data, tmp_path / "a.dcm")
        path.write_bytes(path.read_bytes()[: -len(jpeg(truth[5])) // 2 - len(jpeg(truth[4])) - 16])
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match="only 4 frames of the 6"):
                read(path)

    def test_a_file_that_ends_before_its_pixels(self, tmp_path: Path, truth: Frames) -> None:
        path = save(make_dataset(truth), tmp_path / "a.dcm")
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b"\xe0\x7f\x10\x00")])
        with pytest.raises(VideoReadError, match="without pixel data, or was cut off before them"):
            read_video(path)

    def test_half_a_stream(self, tmp_path: Path) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (30, 40, 60), np.uint8)
        stream = encode_video(tmp_path / "s.h264", frames, codec="libx264", pix_fmt="yuv420p", container="h264")
        data = stream.read_bytes()
        paths = []
        for name, part in (("whole", data), ("half", data[: len(data) // 2])):
            dataset = make_dataset(three(frames), "YBR_PARTIAL_420")
            paths.append(save(encapsulated(dataset, [part], uid.MPEG4HP41), tmp_path / f"{name}.dcm"))
        assert read_video(paths[0]).num_frames == probe_video(paths[0]).num_frames == 30
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match=r"half\.dcm.*: is damaged or cut off: only \d+ frames of the 30"):
                read(paths[1])

    def test_a_stream_that_is_not_encapsulated(self, tmp_path: Path, truth: Frames) -> None:
        plain = save(make_dataset(truth), tmp_path / "plain.dcm").read_bytes()
        meta = make_dataset(truth).file_meta
        meta.TransferSyntaxUID = uid.MPEG4HP41
        target = io.BytesIO()
        write_file_meta_info(target, meta)
        path = tmp_path / "a.dcm"
        body = plain[144 + int.from_bytes(plain[140:144], "little") :]
        path.write_bytes(bytes(128) + b"DICM" + target.getvalue() + body)
        with pytest.raises(VideoReadError, match=r"a\.dcm: states a compression, but its pixel data are not"):
            read_video(path)


class TestRate:
    @pytest.mark.parametrize(
        ("elements", "fps", "warning"),
        [
            ({"FrameTime": "33.3", "FrameTimeVector": [0] + [20] * 5, "FrameIncrementPointer": 0x00181065}, 50, None),
            ({"FrameTime": "25", "FrameTimeVector": [0] + [20] * 5, "FrameIncrementPointer": 0x00181063}, 40, None),
            ({"FrameTime": "25", "FrameTimeVector": [0] + [20] * 5}, 40, None),
            ({"FrameTime": "25", "CineRate": "30"}, 40, "its CineRate 30.0"),
            ({"FrameTime": "33.33", "CineRate": "30"}, 30.003, None),
            ({"FrameTime": "1"}, 50, "unbelievable frame rate of 1000"),
        ],
    )
    def test_which_element_counts(
        self, tmp_path: Path, truth: Frames, elements: dict[str, Any], fps: float, warning: str | None
    ) -> None:
        path = save(make_dataset(truth, **elements), tmp_path / "a.dcm")
        for read in (read_video, probe_video):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert read(path).fps == pytest.approx(fps, rel=1e-3)
            assert [warning in str(each.message) for each in caught] == ([True] if warning else [])

    def test_a_gap_does_not_move_the_rate(self, tmp_path: Path) -> None:
        frames = np.zeros((30, 40, 60), np.uint8)
        data = make_dataset(frames, FrameTimeVector=[0] + [20] * 14 + [1000] + [20] * 14)
        del data.FrameTime
        with pytest.warns(UserWarning, match="gaps of 0.98 s"):
            assert read_video(save(data, tmp_path / "a.dcm")).fps == pytest.approx(50)

    def test_nor_in_a_short_clip(self, tmp_path: Path, truth: Frames) -> None:
        data = make_dataset(truth, FrameTimeVector=[0, 20, 20, 20, 20, 500], FrameIncrementPointer=0x00181065)
        with pytest.warns(UserWarning, match="gaps"):
            assert read_video(save(data, tmp_path / "a.dcm")).fps == pytest.approx(50)

    def test_a_variable_rate_is_resampled(self, tmp_path: Path, truth: Frames) -> None:
        data = make_dataset(truth, FrameTimeVector=[0, 10, 10, 10, 40, 40], FrameIncrementPointer=0x00181065)
        path = save(data, tmp_path / "a.dcm")
        with pytest.warns(UserWarning, match="frame rate varies"):
            video = read_dicom(path, **WHOLE_IMAGE)
        # At 0, 22, 44, 66, 88 and 110 ms of frames at 0, 10, 20, 30, 70 and 110.
        assert video.fps == pytest.approx(5 / 0.11)
        np.testing.assert_array_equal(video.frames, truth[[0, 2, 3, 4, 4, 5]])
        with pytest.warns(UserWarning, match="frame rate varies"):
            np.testing.assert_array_equal(read_dicom(path, [1, 5], **WHOLE_IMAGE).frames, truth[[2, 5]])


class TestErrors:
    def damaged(self, folder: Path, truth: Frames) -> list[Path]:
        deflated = make_dataset(truth)
        deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        paths = [save(deflated, folder / "deflated.dcm")]
        paths[0].write_bytes(paths[0].read_bytes()[: paths[0].stat().st_size // 2])
        for name, change in (
            ("region.dcm", (b"\x18\x00\x18\x60UL", b"\x18\x00\x18\x60FD")),
            ("time.dcm", (b"\x18\x00\x63\x10DS", b"\x18\x00\x63\x10D\x80")),
            ("bits.dcm", (b"\x28\x00\x00\x01US", b"\x28\x00\x00\x01FL")),
        ):
            path = save(make_dataset(truth, SequenceOfUltrasoundRegions=[region(0, 0, 59, 39)]), folder / name)
            data = path.read_bytes()
            assert change[0] in data
            path.write_bytes(data.replace(*change))
            paths.append(path)
        return paths

    def test_every_error_names_the_file_and_none_ends_a_check(self, tmp_path: Path, truth: Frames) -> None:
        good = save(make_dataset(truth), tmp_path / "good.dcm")
        paths = self.damaged(tmp_path, truth)
        for path in paths:
            for read in (read_video, probe_video):
                try:
                    read(path)
                except VideoReadError as error:
                    assert path.name in str(error)
        rows = [{"video": str(path)} for path in (good, *paths, good)]
        problems = validate_videos(rows, progress=False, num_workers=1)
        assert {Path(problem.file).name for problem in problems} >= {"deflated.dcm", "time.dcm"}
        assert not any(problem.file == str(good) for problem in problems)

    def test_deflated(self, tmp_path: Path, truth: Frames) -> None:
        data = make_dataset(truth)
        data.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        check(save(data, tmp_path / "a.dcm"), truth)

    @pytest.mark.parametrize(("rows", "columns"), [(1500, 65500), (40000, 16)])
    def test_size_counts_before_the_crop(self, tmp_path: Path, truth: Frames, rows: int, columns: int) -> None:
        data = make_dataset(truth, Rows=rows, Columns=columns, SequenceOfUltrasoundRegions=[region(0, 0, 9, 9)])
        path = save(data, tmp_path / "a.dcm")
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match=rf"frames of {columns} x {rows} pixels"):
                read(path)

    def test_values_of_a_patient_are_in_no_message(self, tmp_path: Path, truth: Frames) -> None:
        path = save(make_dataset(truth, PatientName="Zaphod^Quillfeather", FrameTime="20"), tmp_path / "a.dcm")
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00D\x80"))
        try:
            read_video(path)
        except VideoReadError as error:
            assert "Zaphod" not in f"{error} {error.__cause__}"


def test_pydicom_agrees(tmp_path: Path, truth: Frames) -> None:
    path = save(make_dataset(three(truth), "RGB"), tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames, pydicom.dcmread(path).pixel_array[..., 0])
