import pytest

from echomen_hf.app import UploadLimits
from echomen_hf.model.echo_video_echomen import VideoInfo
from echomen_hf.model.video_source_echomen import VideoReadError


LIMITS = UploadLimits(max_megabytes=2, max_frames=100, max_frame_pixels=640 * 480, max_video_pixels=10_000_000)


def test_what_is_just_allowed():
    LIMITS.check_file_size(2_000_000, "clip")
    LIMITS.check_header(VideoInfo(100, 250, 400, 50.0), "clip")


def test_file_size():
    with pytest.raises(VideoReadError, match="has 2.5 MB; at most 2 MB"):
        LIMITS.check_file_size(2_500_000, "clip")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (VideoInfo(101, 100, 100, 50.0), r"101 frames \(2 s\); at most 100"),
        (VideoInfo(108_000, 2160, 3840, 30.0), r"108,000 frames \(3,600 s\)"),
        (VideoInfo(2, 2160, 3840, 30.0), "3840 x 2160 pixels; at most 0.3 million"),
        (VideoInfo(10, 8, 8192, 50.0), "8192 x 8 pixels, a shape that no echo has"),
        # 480 * 640 = 307,200, of which 32 fit into 10 million
        (VideoInfo(100, 480, 640, 50.0), "100 frames of 640 x 480 pixels; at most 32 frames of this size"),
    ],
)
def test_header(info, message):
    with pytest.raises(VideoReadError, match=message):
        LIMITS.check_header(info, "clip")


@pytest.mark.parametrize("wrong", [{"max_megabytes": 0}, {"max_frames": 1}, {"max_video_pixels": -1}])
def test_limits_that_allow_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UploadLimits(**wrong)
