from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.examples import get_path
from pydicom.pixels import get_decoder

from echomen_hf.data.decoded_frames import DecodedFrames
from echomen_hf.model import dicom_header_echomen
from echomen_hf.model.dicom_reading_echomen import is_dicom, probe_dicom, read_dicom
from echomen_hf.model.echo_video_echomen import VideoInfo, cut_out_sector
from echomen_hf.model.sector_echomen import find_sector
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor
from echomen_hf.model.video_reading_echomen import probe_video, read_video
from echomen_hf.model.video_source_echomen import VideoReadError
from echomen_hf.simulation import Export, ExportSettings, export_clip, simulate_echo


WHOLE_IMAGE = {"crop_region": False, "margin": 0.0, "square": False}


def make_dataset(frames: NDArray[Any], photometric: str = "MONOCHROME2", **elements: Any) -> FileDataset:
    """Uncompressed cine loop of frames (T, H, W) or (T, H, W, 3)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    bits = frames.dtype.itemsize * 8
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    if frames.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(np.issubdtype(frames.dtype, np.signedinteger))
    dataset.PixelData = frames.tobytes()
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"
    dataset.FrameTime = "20"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(dataset: FileDataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def region(left: int, top: int, right: int, bottom: int, kind: int = 1, spatial: int = 1) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = spatial, kind
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    return item


@pytest.fixture
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 40, 60), np.uint8)


class TestRealCine:
    """An apical four-chamber loop inside the pydicom package: YBR JPEG, its region that of a larger image."""

    @pytest.fixture
    def path(self) -> Path:
        return Path(get_path("ybr_color"))

    def test_sector_is_kept_and_burned_in_text_is_not(self, path: Path) -> None:
        with pytest.warns(UserWarning, match="its ultrasound region does not fit its image"):
            video = read_video(path)
        assert video.frames.shape == (30, 192, 192)
        assert video.fps == pytest.approx(30, abs=0.01)
        # The menu bar at the bottom of the whole image has near-constant gray there; the crop ends above it.
        whole = read_dicom(path, **WHOLE_IMAGE).frames
        np.testing.assert_array_equal(video.frames, whole[:, 24:216, 64:256])
        corners = np.concatenate([video.frames[:, :20, :40], video.frames[:, :20, -40:]])
        assert corners.max() < 40

    def test_luma_agrees_with_the_colour_image(self, path: Path) -> None:
        rgb = pydicom.dcmread(path).pixel_array.astype(float)  # (T, H, W, 3)
        whole = read_dicom(path, **WHOLE_IMAGE).frames
        gray = np.ptp(rgb, axis=-1) <= 2
        assert gray.mean() > 0.9
        np.testing.assert_allclose(whole[gray], rgb[gray] @ [0.299, 0.587, 0.114], atol=2)

    @pytest.mark.filterwarnings("ignore:.*ultrasound region")
    def test_header_and_single_frames(self, path: Path) -> None:
        assert probe_video(path) == VideoInfo(30, 192, 192, pytest.approx(30, abs=0.01))
        indices = [29, 3, 3, 0]
        np.testing.assert_array_equal(read_video(path, indices).frames, read_video(path).frames[indices])


class TestGrayLevels:
    def test_eight_bits_are_exact(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        video = read_dicom(save(make_dataset(noise), tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_array_equal(video.frames, noise)

    def test_monochrome1_is_inverted(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise, "MONOCHROME1"), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames, 255 - noise)

    @pytest.mark.parametrize(
        ("dtype", "stored", "values", "expected"),
        [
            (np.uint16, 16, [0, 257, 65535], [0, 1, 255]),
            (np.uint16, 12, [0, 2048, 4095], [0, 128, 255]),  # 2048 x 255/4095 = 127.53
            (np.int16, 16, [-32768, 0, 32767], [0, 128, 255]),
        ],
    )
    def test_more_bits_are_scaled_by_their_range(
        self, tmp_path: Path, dtype: type, stored: int, values: list[int], expected: list[int]
    ) -> None:
        frames = np.tile(np.array(values, dtype), (2, 4, 4))  # (2, 4, 12)
        dataset = make_dataset(frames, BitsStored=stored, HighBit=stored - 1)
        video = read_dicom(save(dataset, tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_array_equal(video.frames[1, 2, :3], expected)

    @pytest.mark.parametrize("slope", [1, 2])
    def test_window_of_the_file_is_used(self, tmp_path: Path, slope: int) -> None:
        # Window 1000 wide around 1000, DICOM PS3.3 C.11.2.1.2: black up to 500, white from 1499.
        frames = np.tile(np.array([0, 500, 1000, 1499, 4000], np.uint16) // slope, (2, 4, 4))
        dataset = make_dataset(frames, WindowCenter=1000, WindowWidth=1000, RescaleSlope=slope, RescaleIntercept=0)
        video = read_dicom(save(dataset, tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_allclose(video.frames[0, 0, :5].astype(int), [0, 0, 128, 255, 255], atol=1)

    def test_half_a_window_is_no_window(self, tmp_path: Path) -> None:
        frames = np.tile(np.array([0, 32768, 65535], np.uint16), (2, 4, 4))
        path = save(make_dataset(frames, WindowWidth=1000), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames[0, 0, :3], [0, 128, 255])

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_rescaling_that_leaves_one_grey_level_is_refused(self, tmp_path: Path) -> None:
        frames = np.tile(np.array([0, 500, 1000], np.uint16), (2, 4, 4))
        window = {"WindowCenter": 1000, "WindowWidth": 1000, "RescaleSlope": 0, "RescaleIntercept": 0}
        with pytest.raises(VideoReadError, match=r"a\.dcm: maps every value to one grey level"):
            read_dicom(save(make_dataset(frames, **window), tmp_path / "a.dcm"), **WHOLE_IMAGE)

    def test_eight_bits_are_taken_as_stored_whatever_the_window(
        self, tmp_path: Path, noise: NDArray[np.uint8]
    ) -> None:
        path = save(make_dataset(noise, WindowCenter=100, WindowWidth=20), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames, noise)

    def test_rgb_becomes_luma(self, tmp_path: Path) -> None:
        colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]], np.uint8)
        path = save(make_dataset(np.tile(colours, (2, 4, 1, 1)), "RGB"), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames[0, 0], [76, 150, 29, 90])

    def test_luma_of_ybr_is_taken_as_it_is(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        ybr = np.stack([noise, 255 - noise, noise // 2], axis=-1)
        path = save(make_dataset(ybr, "YBR_FULL"), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, **WHOLE_IMAGE).frames, noise)

    def test_palette(self, tmp_path: Path) -> None:
        frames = np.tile(np.array([0, 1, 2, 3], np.uint8), (2, 4, 1))
        dataset = make_dataset(frames, "PALETTE COLOR")
        table = {"Red": [0, 65535, 0, 257 * 90], "Green": [0, 0, 65535, 257 * 90], "Blue": [0, 0, 0, 257 * 90]}
        for colour, entries in table.items():
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", np.array(entries, np.uint16).tobytes())
        video = read_dicom(save(dataset, tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_array_equal(video.frames[1, 3], [0, 76, 150, 90])

    def test_unknown_colour_is_refused(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(np.stack([noise] * 3, axis=-1), "CMYK"), tmp_path / "a.dcm")
        with pytest.raises(VideoReadError, match=r"a\.dcm: .*CMYK"):
            read_dicom(path)


class TestCompression:
    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless], ids=lambda syntax: syntax.name)
    def test_lossless(self, tmp_path: Path, noise: NDArray[np.uint8], syntax: uid.UID) -> None:
        dataset = make_dataset(noise)
        dataset.compress(syntax, generate_instance_uid=False)
        video = read_dicom(save(dataset, tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_array_equal(video.frames, noise)

    def test_jpeg_baseline(self, tmp_path: Path) -> None:
        smooth = np.add.outer(np.arange(5) * 10, np.add.outer(np.arange(40), 2 * np.arange(60))).astype(np.uint8)
        images = []
        for frame in smooth:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=98)
            images.append(buffer.getvalue())
        dataset = make_dataset(smooth, PixelData=encapsulate(images))
        dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        dataset["PixelData"].is_undefined_length = True
        video = read_dicom(save(dataset, tmp_path / "a.dcm"), **WHOLE_IMAGE)
        np.testing.assert_allclose(video.frames.astype(int), smooth, atol=2)

    def test_jpeg_ls(self) -> None:
        # The same image, as pydicom ships it in both forms.
        folder = Path(get_path("ybr_color")).parent
        plain, coded = (read_still(folder / name) for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"))
        assert plain.std() > 10
        np.testing.assert_array_equal(coded, plain)

    def test_h264_inside_dicom(
        self, tmp_path: Path, write_video: Callable[..., Path], ramp: Callable[..., NDArray[np.uint8]]
    ) -> None:
        stream = write_video(
            tmp_path / "stream.h264", ramp(10), codec="libx264", pix_fmt="yuv420p", container="h264", crf="4"
        )
        frames = ramp(10)
        dataset = make_dataset(np.stack([frames] * 3, axis=-1), "YBR_PARTIAL_420", FrameTime="10")
        dataset.PixelData = encapsulate([stream.read_bytes()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
        path = save(dataset, tmp_path / "a.dcm")
        video = read_dicom(path, margin=0.0)
        assert video.fps == 100
        assert video.frames.shape == (10, 32, 32)
        np.testing.assert_allclose(video.frames[:, :, :12].astype(int), frames[:, :, 8:20], atol=2)
        np.testing.assert_array_equal(read_dicom(path, [4], margin=0.0).frames[0], video.frames[4])

    def test_offset_table_before_a_stream_is_no_part_of_it(
        self, tmp_path: Path, write_video: Callable[..., Path], ramp: Callable[..., NDArray[np.uint8]]
    ) -> None:
        stream = write_video(
            tmp_path / "stream.h264", ramp(10), codec="libx264", pix_fmt="yuv420p", container="h264", crf="4"
        )
        dataset = make_dataset(np.stack([ramp(10)] * 3, axis=-1), "YBR_PARTIAL_420", FrameTime="10")
        dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
        decoded = []
        for has_offsets in (False, True):
            dataset.PixelData = encapsulate([stream.read_bytes()], has_bot=has_offsets)
            dataset["PixelData"].is_undefined_length = True
            decoded.append(read_dicom(save(dataset, tmp_path / "a.dcm"), margin=0.0).frames)
        np.testing.assert_array_equal(decoded[0], decoded[1])
        dataset.Rows = 64
        with pytest.raises(VideoReadError, match=r"a stream of \(32, 48\) pixels where its header says \(64, 48\)"):
            read_dicom(save(dataset, tmp_path / "b.dcm"))

    def test_unsupported_transfer_syntax_is_named(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        dataset = make_dataset(noise)
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = uid.JPIPHTJ2KReferenced
        with pytest.raises(VideoReadError, match=r"a\.dcm: uses a compression that cannot be decoded \(JPIP"):
            read_dicom(save(dataset, tmp_path / "a.dcm"))

    def test_missing_decoder_says_what_to_install(
        self, tmp_path: Path, noise: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = make_dataset(noise)
        dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
        monkeypatch.setattr(get_decoder(uid.JPEG2000Lossless), "_available", {})
        with pytest.raises(VideoReadError, match=r"is compressed as JPEG 2000.*pip install .*pylibjpeg"):
            read_dicom(save(dataset, tmp_path / "a.dcm"))

    def test_missing_pydicom_says_what_to_install(
        self, tmp_path: Path, noise: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(make_dataset(noise), tmp_path / "a.dcm")
        monkeypatch.setattr(dicom_header_echomen, "pydicom", None)
        with pytest.raises(VideoReadError, match=r"pydicom is not installed; .*pip install"):
            read_video(path)


def read_still(path: Path) -> NDArray[np.uint8]:
    with pytest.warns(UserWarning, match="states no frame rate"):
        return read_dicom(path, **WHOLE_IMAGE).frames


class TestCrop:
    def test_region_is_cropped_with_its_last_row_and_column(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[region(10, 5, 39, 34)]), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 5:35, 10:40])

    def test_wide_region_is_squared_around_its_centre(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[region(0, 10, 49, 29)]), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 10:30, 15:35])
        np.testing.assert_array_equal(read_dicom(path, square=False).frames, noise[:, 10:30, 0:50])

    def test_without_region_the_outer_tenth_goes(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, square=False).frames, noise[:, 4:36, 6:54])
        np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 4:36, 14:46])
        np.testing.assert_array_equal(read_dicom(path, margin=0.25, square=False).frames, noise[:, 10:30, 15:45])

    def test_largest_tissue_region_wins_over_doppler(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        regions = [region(0, 0, 14, 14), region(0, 0, 59, 39, kind=3, spatial=3), region(20, 0, 39, 19)]
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=regions), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 0:20, 20:40])

    def test_only_doppler_counts_as_no_region(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        regions = [region(0, 20, 59, 39, kind=3, spatial=3)]
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=regions), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 4:36, 14:46])

    def test_overshooting_region_is_clipped(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[region(30, 10, 69, 44)]), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read_dicom(path, square=False).frames, noise[:, 10:40, 30:60])

    @pytest.mark.parametrize(
        "corners",
        [(100, 100, 200, 200), (39, 5, 10, 34), (20, 10, 119, 79), (30, 20, 31, 21)],
        ids=["outside", "swapped", "of an image twice as large", "a few pixels"],
    )
    def test_nonsense_region_is_ignored_with_a_warning(
        self, tmp_path: Path, noise: NDArray[np.uint8], corners: tuple[int, int, int, int]
    ) -> None:
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[region(*corners)]), tmp_path / "a.dcm")
        with pytest.warns(UserWarning, match=r"a\.dcm: its ultrasound region does not fit"):
            np.testing.assert_array_equal(read_dicom(path).frames, noise[:, 4:36, 14:46])

    def test_incomplete_region_is_ignored(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        item = region(10, 5, 39, 34)
        del item.RegionLocationMaxX1
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[item]), tmp_path / "a.dcm")
        with pytest.warns(UserWarning, match="does not fit"):
            assert read_dicom(path).frames.shape == (5, 32, 32)

    def test_header_tells_the_size_after_the_crop(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise, SequenceOfUltrasoundRegions=[region(0, 10, 49, 29)]), tmp_path / "a.dcm")
        assert probe_dicom(path) == VideoInfo(5, 20, 20, 50)
        assert probe_dicom(path, square=False) == VideoInfo(5, 20, 50, 50)

    @pytest.mark.parametrize("margin", [-0.1, 0.5])
    def test_impossible_margin(self, tmp_path: Path, noise: NDArray[np.uint8], margin: float) -> None:
        with pytest.raises(ValueError, match="margin must lie in"):
            read_dicom(save(make_dataset(noise), tmp_path / "a.dcm"), margin=margin)


@pytest.fixture(scope="module")
def clip() -> NDArray[np.uint8]:
    return simulate_echo(4, num_frames=30).frames


@pytest.fixture(scope="module")
def screen(clip: NDArray[np.uint8]) -> Export:
    return export_clip(clip, 50.0, ExportSettings(width=480, height=360, fan_height=0.6, across=0.2))


class TestRegionIsAHint:
    """Where a video processor looks for the ultrasound fan itself, the region of the file need not be right."""

    def write(
        self, path: Path, frames: NDArray[np.uint8], *corners: tuple[int, int, int, int], **elements: Any
    ) -> Path:
        regions = [region(*box) for box in corners] + [region(0, 300, 479, 359, kind=3, spatial=3)]
        return save(make_dataset(frames, SequenceOfUltrasoundRegions=regions, **elements), path)

    @pytest.mark.filterwarnings("ignore:.*does not fit its image")
    @pytest.mark.parametrize(
        "corners",
        [[], ["fan"], [(0, 0, 479, 50)], ["left half"], [(900, 500, 1500, 900)], [(100, 80, 900, 600)]]
        + [[(0, 0, 479, 90), "left half", "fan"]],
        ids=["none", "right", "text bar", "cuts the fan", "outside", "of a larger image", "several"],
    )
    def test_the_fan_is_found_whatever_the_region(self, tmp_path: Path, screen: Export, corners: list[Any]) -> None:
        left, top, right, bottom = screen.box
        named = {"fan": (left, top, right - 1, bottom - 1), "left half": (left, top, (left + right) // 2, bottom - 1)}
        path = self.write(tmp_path / "a.dcm", screen.frames, *(named.get(box, box) for box in corners))
        video = cut_out_sector(read_video(path))
        alone = find_sector(screen.frames)
        assert np.abs(np.subtract(alone.box, screen.box)).max() <= 12
        assert video.sector == alone
        np.testing.assert_array_equal(video.frames, alone.crop(screen.frames))
        assert video.whole is None

    def test_the_region_chooses_between_two_fans(self, tmp_path: Path, clip: NDArray[np.uint8]) -> None:
        settings = ExportSettings(width=640, height=360, second_panel="colour", second_size=0.95)
        frames = export_clip(clip, 50.0, settings).frames
        first, second = (
            cut_out_sector(read_video(self.write(tmp_path / "a.dcm", frames, corners))).sector
            for corners in ((0, 0, 639, 50), (330, 0, 639, 359))
        )
        assert first is not None
        assert second is not None
        assert first.box[2] < 330 < second.box[0]

    def test_the_region_is_kept_where_no_fan_is(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        video = cut_out_sector(read_video(self.write(tmp_path / "a.dcm", noise, (10, 5, 39, 34))))
        assert video.sector is not None
        assert video.sector.shape == "none"
        np.testing.assert_array_equal(video.frames, noise[:, 5:35, 10:40])

    def test_a_clip_that_is_cropped_already_keeps_its_margins(self, tmp_path: Path, clip: NDArray[np.uint8]) -> None:
        path = save(make_dataset(clip), tmp_path / "a.dcm")
        assert read_video(path).frames.shape == (30, 90, 90)
        np.testing.assert_array_equal(cut_out_sector(read_video(path)).frames, clip)

    def test_a_processor_that_looks_for_no_fan_keeps_the_region(self, tmp_path: Path, screen: Export) -> None:
        path = self.write(tmp_path / "a.dcm", screen.frames, (0, 0, 479, 89))
        processor = EchoMENVideoProcessor(do_find_sector=False)
        np.testing.assert_array_equal(
            processor.crop_to_sector(read_video(path)).frames, screen.frames[:, :90, 195:285]
        )

    def test_some_frames_are_those_of_all(self, tmp_path: Path, screen: Export) -> None:
        row = {"video": {"path": str(self.write(tmp_path / "a.dcm", screen.frames, (0, 0, 479, 50)))}}
        processor = EchoMENVideoProcessor()
        everything = DecodedFrames(processor).read(row | {"file_name": "a"})
        some = DecodedFrames(processor).read(row | {"file_name": "a"}, np.array([7, 2]))
        np.testing.assert_array_equal(some, everything[[7, 2]])
        cropped = find_sector(screen.frames).crop(screen.frames)
        np.testing.assert_array_equal(everything, processor.resize_frames(cropped).numpy())

    def test_pixels_that_are_not_square(self, tmp_path: Path, screen: Export) -> None:
        left, top, right, bottom = screen.box
        corners = (left // 2, top, right // 2 - 1, bottom - 1)
        narrow = np.ascontiguousarray(screen.frames[:, :, ::2])
        path = self.write(tmp_path / "a.dcm", narrow, corners, PixelAspectRatio=[1, 2])
        video = read_video(path)
        assert video.whole is not None
        assert video.whole.shape == screen.frames.shape
        assert video.region is not None
        assert np.abs(np.subtract(video.region, screen.box)).max() <= 2
        assert np.abs(np.subtract(find_sector(video.whole).box, screen.box)).max() <= 12

    def test_a_real_loop_whose_region_is_that_of_a_larger_image(self) -> None:
        with pytest.warns(UserWarning, match="its ultrasound region does not fit its image"):
            sector = cut_out_sector(read_video(get_path("ybr_color"))).sector
        assert sector is not None
        assert sector.shape == "fan"
        # read off the picture: the tip at column 170 and row 20, cut off; the lower end at row 200
        assert sector.apex[0] == pytest.approx(170, abs=4)
        assert sector.box[1] < 22
        assert sector.box[3] == pytest.approx(201, abs=4)


class TestFrameRate:
    @pytest.mark.parametrize(
        ("elements", "fps"),
        [
            ({"FrameTime": "25", "CineRate": "30"}, 40),
            ({"FrameTimeVector": ["0", "10", "30", "20"], "CineRate": "30"}, 50),
            ({"CineRate": "30", "RecommendedDisplayFrameRate": "15"}, 30),
            ({"RecommendedDisplayFrameRate": "15"}, 15),
            ({"FrameTime": "0", "CineRate": "30"}, 30),
            ({"FrameTime": "0.033", "CineRate": "30"}, 30),
        ],
    )
    def test_time_between_frames_comes_before_display_rates(
        self, tmp_path: Path, noise: NDArray[np.uint8], elements: dict[str, Any], fps: float
    ) -> None:
        dataset = make_dataset(noise)
        del dataset.FrameTime
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        assert read_video(save(dataset, tmp_path / "a.dcm")).fps == pytest.approx(fps)

    @pytest.mark.parametrize("frame_time", [None, "0", "100000"])
    def test_missing_or_absurd(self, tmp_path: Path, noise: NDArray[np.uint8], frame_time: str | None) -> None:
        path = save(make_dataset(noise, FrameTime=frame_time), tmp_path / "a.dcm")
        with pytest.warns(UserWarning, match=r"a\.dcm: states .* frame rate.*; assuming 50"):
            assert read_dicom(path).fps == 50
        with pytest.raises(VideoReadError, match="frame rate"):
            read_dicom(path, default_fps=None)


class TestRecognition:
    def test_by_content_whatever_the_name(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise), tmp_path / "clip.avi")
        assert is_dicom(path)
        assert is_dicom(path.read_bytes())
        np.testing.assert_array_equal(read_video(path.read_bytes()).frames, read_dicom(path).frames)

    @pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
    def test_without_prefix_and_file_meta(self, tmp_path: Path, noise: NDArray[np.uint8], syntax: uid.UID) -> None:
        path = tmp_path / "bare.dcm"
        with open(path, "wb") as file:
            pydicom.dcmwrite(
                file,
                Dataset({element.tag: element for element in make_dataset(noise)}),
                implicit_vr=syntax.is_implicit_VR,
                little_endian=True,
            )
        assert path.read_bytes()[128:132] != b"DICM"
        np.testing.assert_array_equal(read_video(path).frames, noise[:, 4:36, 14:46])

    def test_other_files_are_not(
        self, tmp_path: Path, write_video: Callable[..., Path], ramp: Callable[..., NDArray[np.uint8]]
    ) -> None:
        assert not is_dicom(write_video(tmp_path / "clip.avi", ramp(2)))
        text = tmp_path / "text.dcm"
        text.write_text("no image here\n" * 50)
        assert not is_dicom(text)
        with pytest.raises(VideoReadError, match=r"text\.dcm: is neither a DICOM nor a video"):
            read_video(text)


class TestErrors:
    def test_no_pixel_data(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        dataset = make_dataset(noise)
        del dataset.PixelData
        with pytest.raises(VideoReadError, match=r"a\.dcm: is a DICOM file without pixel data"):
            read_video(save(dataset, tmp_path / "a.dcm"))

    def test_no_image_header(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        dataset = make_dataset(noise)
        del dataset.Rows
        path = save(dataset, tmp_path / "a.dcm")
        for read in (read_video, probe_video):
            with pytest.raises(VideoReadError, match=r"a\.dcm: is not a DICOM image \(Rows"):
                read(path)

    def test_single_frame_is_a_clip_of_one(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        dataset = make_dataset(noise[:1])
        del dataset.NumberOfFrames
        assert read_video(save(dataset, tmp_path / "a.dcm")).num_frames == 1

    def test_frame_beyond_the_end(self, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
        path = save(make_dataset(noise), tmp_path / "a.dcm")
        with pytest.raises(VideoReadError, match="has 5 frames, but frame 5 was asked for"):
            read_video(path, [0, 5])

    @pytest.fixture
    def cut_off(self, tmp_path: Path) -> Path:
        noise = np.random.default_rng(0).integers(0, 256, (20, 40, 60), np.uint8)
        dataset = make_dataset(noise)
        dataset.compress(uid.RLELossless, generate_instance_uid=False)
        kept = list(generate_frames(dataset.PixelData, number_of_frames=20))[:8]
        dataset.PixelData = encapsulate(kept)
        return save(dataset, tmp_path / "cut.dcm")

    def test_truncated_pixel_data(self, cut_off: Path) -> None:
        with pytest.raises(VideoReadError, match=r"cut\.dcm: is damaged or cut off: only 8 frames of the 20"):
            read_video(cut_off)
        with pytest.warns(UserWarning, match="only 8 frames of the 20.*using what is there"):
            assert read_video(cut_off, allow_truncated=True).num_frames == 8
        assert read_video(cut_off, [7, 0]).num_frames == 2
        with pytest.raises(VideoReadError, match="only 8 frames of the 20"):
            read_video(cut_off, [7, 12])


class TestPrivacy:
    SECRETS = {
        "PatientName": "Zaphod^Quillfeather",
        "PatientID": "MRN-55512345",
        "PatientBirthDate": "19010203",
        "OtherPatientIDs": "OTHER-998877",
        "PatientComments": "confidential-remark",
        "ReferringPhysicianName": "Slartibartfast^Doc",
        "InstitutionName": "Milliways General",
    }

    def variants(self, tmp_path: Path, noise: NDArray[np.uint8]) -> dict[str, Path]:
        """Files that read well, and files that fail in every way."""
        compressed = make_dataset(noise)
        compressed.compress(uid.RLELossless, generate_instance_uid=False)
        damaged = compressed.PixelData[:-200]
        changes: dict[str, Callable[[FileDataset], None]] = {
            "good": lambda dataset: None,
            "no_rows": lambda dataset: delattr(dataset, "Rows"),
            "no_pixels": lambda dataset: delattr(dataset, "PixelData"),
            "short": lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:100]),
            "no_rate": lambda dataset: delattr(dataset, "FrameTime"),
            "bad_region": lambda dataset: setattr(dataset, "SequenceOfUltrasoundRegions", [region(9, 9, 1, 1)]),
            "bad_colour": lambda dataset: setattr(dataset, "PhotometricInterpretation", "NONSENSE"),
        }
        paths = {}
        for name, change in changes.items():
            dataset = make_dataset(noise, **self.SECRETS)
            change(dataset)
            paths[name] = save(dataset, tmp_path / f"{name}.dcm")
        dataset = make_dataset(noise, **self.SECRETS)
        dataset.file_meta.TransferSyntaxUID = uid.RLELossless
        dataset.PixelData = damaged
        dataset["PixelData"].is_undefined_length = True
        paths["damaged"] = save(dataset, tmp_path / "damaged.dcm")
        paths["cut"] = tmp_path / "cut.dcm"
        paths["cut"].write_bytes(paths["good"].read_bytes()[:700])
        return paths

    def test_no_patient_field_in_output_log_warning_or_error(
        self, tmp_path: Path, noise: NDArray[np.uint8], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        texts, failures = [], 0
        for path in self.variants(tmp_path, noise).values():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for read in (read_video, probe_video):
                    try:
                        texts.append(repr(read(path)))
                    except VideoReadError:
                        failures += 1
                        texts.append(traceback.format_exc())
            texts.extend(str(warning.message) for warning in caught)
        assert failures >= 6
        captured = capfd.readouterr()
        text = "\n".join([*texts, caplog.text, captured.out, captured.err])
        assert "good.dcm" in text
        for secret in self.SECRETS.values():
            for part in secret.split("^"):
                assert part not in text

    def test_patient_elements_are_not_even_parsed(
        self, tmp_path: Path, noise: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(make_dataset(noise, **self.SECRETS), tmp_path / "a.dcm")
        parsed = []
        original = pydicom.dcmread

        def spy(*args: Any, **kwargs: Any) -> FileDataset:
            parsed.append(original(*args, **kwargs))
            return parsed[-1]

        monkeypatch.setattr(pydicom, "dcmread", spy)
        read_video(path)
        probe_video(path)
        assert len(parsed) == 2
        for dataset in parsed:
            # 0008,0005 is the character set; image, timing and region elements are in groups 0018, 0028 and 7FE0.
            tags = set(dataset.keys()) - {0x00080005}
            assert {tag.group for tag in tags} <= {0x0018, 0x0028, 0x7FE0}
