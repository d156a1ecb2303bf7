import warnings
from fractions import Fraction

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.examples import get_path

from echomen_hf import read_video
from echomen_hf.app import UploadLimits, intake
from echomen_hf.app.intake import known_suffix, receive_clip
from echomen_hf.model.clip_quality_echomen import inspect_clip
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.model.video_source_echomen import VideoReadError
from echomen_hf.simulation import ExportSettings, export_clip, simulate_echo, write_avi


SPEC = ClipSpec(num_frames=8, sampling_period=4, reference_fps=50)  # spans 29 frames at 50 frames per second


def receive(path, **limits):
    return receive_clip(path, UploadLimits(**limits), SPEC)


@pytest.fixture
def beating_clip(write_video, beating_frames, tmp_path):
    return write_video(tmp_path / "clip.avi", beating_frames)


def in_colour(frames):
    return np.repeat(frames[..., None], 3, axis=-1)


def reasons(clip):
    """What speaks against an estimate of a clip that was received, apart from the missing fan of these pictures."""
    found = [finding.reason for finding in inspect_clip(clip.video, SPEC)]
    return [reason for reason in found if "fan" not in reason]


def test_a_good_clip_comes_without_cautions(beating_clip, beating_frames):
    clip = receive(beating_clip)
    assert clip.video.frames.shape == beating_frames.shape
    assert clip.video.fps == 50
    assert clip.cautions == ()
    assert not clip.synthetic


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is an empty file; copy it again"), (b"not a video\n" * 20, "is not a video that FFmpeg can open")],
)
def test_no_video(tmp_path, content, message):
    path = tmp_path / "SMITH_JOHN_1950.avi"
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match=message) as raised:
        receive(path)
    assert "SMITH" not in str(raised.value)


def test_a_still_image(write_video, beating_frames, tmp_path):
    with pytest.raises(VideoReadError, match="has one frame"):
        receive(write_video(tmp_path / "still.avi", beating_frames[:1]))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_megabytes": 0.001}, "at most 0.001 MB"),
        ({"max_frames": 59}, "60 frames"),
        ({"max_frame_pixels": 64 * 64 - 1}, "64 x 64 pixels"),
        ({"max_video_pixels": 60 * 64 * 64 - 1}, "at most 59 frames of this size"),
    ],
)
def test_limits_hold_before_anything_is_decoded(beating_clip, monkeypatch, limits, message):
    monkeypatch.setattr(intake, "read_video", lambda *_, **__: pytest.fail("decoded in spite of the limit"))
    with pytest.raises(VideoReadError, match=message):
        receive(beating_clip, **limits)


def test_a_header_that_names_too_few_frames_does_not_get_around_the_limit(beating_clip):
    data = bytearray(beating_clip.read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40)):  # number of frames, after the chunk's name and size
        position = data.index(chunk) + offset
        data[position : position + 4] = (2).to_bytes(4, "little")
    beating_clip.write_bytes(data)
    with pytest.raises(VideoReadError, match="60 frames"):
        receive(beating_clip, max_frames=40)


def test_a_clip_that_was_cut_off(write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_frames)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoReadError, match="frames of the 60") as raised:
        receive(path)
    assert "allow_truncated" not in raised.value.remedy


def test_colour_doppler(write_video, beating_frames, tmp_path):
    frames = in_colour(beating_frames)
    frames[:, 10:20, 10:20] = (220, 40, 30)  # 2.4 % of the picture
    path = write_video(tmp_path / "clip.avi", frames, source_format="rgb24")
    (reason,) = reasons(receive(path))
    assert "colour Doppler" in reason


def test_gray_stored_in_colour_is_not_doppler(write_video, beating_frames, tmp_path):
    frames = in_colour(beating_frames)
    frames[:, 60] = (40, 220, 40)  # a trace
    path = write_video(tmp_path / "clip.avi", frames, source_format="rgb24")
    assert reasons(receive(path)) == []


def test_colour_palette_of_gif(write_video, beating_frames, tmp_path):
    frames = in_colour(beating_frames)
    frames[:, 10:30, 10:30] = (220, 40, 30)
    path = write_video(tmp_path / "clip.gif", frames, 25, "gif", "rgb8", "rgb24")
    assert any("colour Doppler" in reason for reason in reasons(receive(path)))


def test_dicom_in_colour_space_but_gray():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = receive(get_path("ybr_color"))
    assert clip.video.sector.shape == "fan"
    assert clip.video.frames.shape[1:] == (clip.video.sector.square[2],) * 2
    assert not any("Doppler" in reason for reason in reasons(clip))


def colour_dicom(path, frames):
    """Make an uncompressed cine loop of RGB, (T, H, W, 3), or of palette indices, (T, H, W), still without palette."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape[:3]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
    if frames.ndim == 4:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = frames.tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.FrameTime = "20"
    return dataset


def test_colour_doppler_in_dicom(beating_frames, tmp_path):
    frames = in_colour(beating_frames)
    frames[:, 10:30, 10:30] = (220, 40, 30)
    path = tmp_path / "a.dcm"
    colour_dicom(path, frames).save_as(path, enforce_file_format=True)
    assert any("colour Doppler" in reason for reason in reasons(receive(path)))


@pytest.mark.parametrize(("red", "expected"), [(0, False), (90, True)])
def test_palette_in_dicom(beating_frames, tmp_path, red, expected):
    path = tmp_path / "a.dcm"
    dataset = colour_dicom(path, beating_frames)
    gray = np.arange(256)
    for name, levels in (("Red", np.clip(gray + red, 0, 255)), ("Green", gray), ("Blue", gray)):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", (levels * 257).astype("<u2").tobytes())
    dataset.save_as(path, enforce_file_format=True)
    assert any("colour Doppler" in reason for reason in reasons(receive(path))) is expected


def test_colour_in_a_stream_inside_dicom(write_video, beating_frames, tmp_path):
    frames = in_colour(beating_frames)
    frames[:, 10:30, 10:30] = (220, 40, 30)
    stream = write_video(tmp_path / "a.h264", frames, 50, "libx264", "yuv420p", "rgb24", "h264").read_bytes()
    path = tmp_path / "a.dcm"
    dataset = colour_dicom(path, frames)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
    dataset.PixelData = encapsulate([stream])
    dataset.save_as(path, enforce_file_format=True)
    assert any("colour Doppler" in reason for reason in reasons(receive(path)))


def test_short_clip(write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_frames[:20])
    (reason,) = reasons(receive(path))
    assert "0.40 s, too short for a whole heart beat" in reason


def test_frozen_picture(write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", np.repeat(beating_frames[:1], 60, axis=0))
    (reason,) = reasons(receive(path))
    assert "Hardly anything moves" in reason


def test_unbelievable_frame_rate(write_video, beating_frames, tmp_path):
    path = write_video(tmp_path / "clip.avi", beating_frames, Fraction(1, 10))
    with pytest.warns(UserWarning, match="unbelievable frame rate"):
        clip = receive(path)
    assert clip.video.fps == 50
    (caution,) = clip.cautions
    assert "50 frames per second are assumed" in caution


def test_suffix_keeps_nothing_of_a_name(tmp_path):
    assert known_suffix(tmp_path / "a.AVI") == ".avi"
    assert known_suffix(tmp_path / "1.2.840.SMITH") == ""


def test_the_fan_is_cut_out_of_a_screen(tmp_path):
    screen = export_clip(simulate_echo(1, num_frames=40).frames, 50.0, ExportSettings(width=320, height=240))
    write_avi(tmp_path / "screen.avi", screen.frames, 50.0)
    whole = read_video(tmp_path / "screen.avi")
    clip = receive_clip(tmp_path / "screen.avi", UploadLimits(), ClipSpec())
    assert clip.video.sector.shape == "fan"
    assert np.array_equal(clip.video.frames, clip.video.sector.crop(whole.frames))
    as_it_is = receive_clip(tmp_path / "screen.avi", UploadLimits(), ClipSpec(), find_sector=False).video
    assert as_it_is.sector is None
    assert np.array_equal(as_it_is.frames, whole.frames)
