import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoVideoProcessor

from echomen_hf import EchoMENConfig, EchoMENVideoProcessor, read_video
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.simulation import ExportSettings, export_clip, simulate_echo


@pytest.fixture
def video():
    """90 frames of 112 x 112 pixels, each frame of one grey level: its own number."""
    return np.broadcast_to(np.arange(90, dtype=np.uint8)[:, None, None], (90, 112, 112)).copy()


@pytest.fixture
def processor():
    return EchoMENVideoProcessor(image_mean=[30.0], image_std=[50.0])


def levels(clip):
    """Grey level of every frame of a normalised clip of even frames."""
    return (clip[:, 0, 0, 0] * 50 + 30).round().int().tolist()


def test_round_trip_is_equal(processor, tmp_path):
    processor.image_mean = [31.25]
    processor.save_pretrained(tmp_path)
    assert EchoMENVideoProcessor.from_pretrained(tmp_path).to_dict() == processor.to_dict()
    EchoMENConfig().save_pretrained(tmp_path)
    assert isinstance(AutoVideoProcessor.from_pretrained(tmp_path), EchoMENVideoProcessor)


def test_processor_of_a_model_makes_its_input(tiny_config, tiny_model):
    processor = EchoMENVideoProcessor.for_model(tiny_config, image_mean=[20.0])
    features = processor(np.zeros((70, 60, 80), np.uint8), return_tensors="pt")
    assert features["pixel_values"].shape == (1, 8, 1, 32, 32)
    assert processor.image_mean == [20.0]
    assert tiny_model(**features).ejection_fraction.shape == (1,)


class TestSampling:
    def test_central_clip_takes_every_second_frame(self, processor, video):
        clip = processor(video, return_tensors="pt")["pixel_values"][0]
        # 63 of 90 frames are spanned, so the first is frame (90 - 63) // 2.
        assert levels(clip) == list(range(13, 13 + 63, 2))

    def test_another_frame_rate_spans_the_same_time(self, processor, video):
        clip = processor(video, video_metadata={"fps": 25.0, "total_num_frames": 90}, return_tensors="pt")
        assert levels(clip["pixel_values"][0]) == list(range(29, 29 + 32))

    def test_short_video_is_filled_up(self, processor, video):
        there, back = list(range(0, 20, 2)), list(range(18, 0, -2))  # the last frame, 19, is met once
        for options in ({}, {"short_videos": "back_and_forth"}):
            clip = processor(video[:20], **options, return_tensors="pt")["pixel_values"][0]
            assert levels(clip) == (there + back + there + back)[:32]
        clip = processor(video[:20], short_videos="loop", return_tensors="pt")["pixel_values"][0]
        assert levels(clip) == there * 3 + [0, 2]
        clip = processor(video[:20], short_videos="zeros", return_tensors="pt")["pixel_values"][0]
        assert levels(clip[:10]) == list(range(0, 20, 2))
        assert (clip[10:] == 0).all()

    def test_every_frame_without_sampling(self, processor, video):
        clip = processor(video[:20], do_sample_frames=False, return_tensors="pt")["pixel_values"]
        assert levels(clip[0]) == list(range(20))

    def test_options_of_one_call(self, processor, video):
        features = processor(video, num_frames=8, sampling_period=4, return_tensors="pt")
        assert levels(features["pixel_values"][0]) == list(range(30, 30 + 32, 4))
        assert processor.num_frames == 32

    def test_several_clips_of_one_video(self, processor, video):
        from echomen_hf.model.echo_video_echomen import EchoVideo

        clips = processor.make_clips(EchoVideo(video, 50.0, "video"), [0, 5, 60])
        assert clips.shape == (3, 32, 3, 112, 112)
        assert levels(clips[1]) == list(range(5, 5 + 63, 2))
        assert levels(clips[2]) == [*range(60, 90, 2), *range(88, 54, -2)]
        processor.short_videos = "zeros"
        clips = processor.make_clips(EchoVideo(video, 50.0, "video"), [60])
        assert levels(clips[0][:15]) == list(range(60, 90, 2))
        assert (clips[0][15:] == 0).all()


class TestFrames:
    def test_normalisation(self, processor):
        video = np.random.default_rng(0).integers(0, 256, (64, 112, 112), dtype=np.uint8)
        clip = processor(video, return_tensors="pt")["pixel_values"][0]
        expected = (torch.from_numpy(video[::2].astype(np.float64)) - 30) / 50
        torch.testing.assert_close(clip.double(), expected[:, None].expand(-1, 3, -1, -1), atol=1e-6, rtol=0)

    def test_statistics_per_channel(self, video):
        processor = EchoMENVideoProcessor(image_mean=[10.0, 20.0, 30.0], image_std=[1.0, 2.0, 4.0])
        frame = processor(video, return_tensors="pt")["pixel_values"][0, 0]
        assert frame[:, 0, 0].tolist() == [3.0, -3.5, -4.25]

    def test_one_channel(self, video):
        processor = EchoMENVideoProcessor(num_channels=1)
        assert processor(video, return_tensors="pt")["pixel_values"].shape == (1, 32, 1, 112, 112)

    def test_shorter_side_is_resized_and_the_central_square_kept(self, processor):
        video = np.zeros((64, 224, 448), np.uint8)
        video[:, :, 112:336] = 200  # exactly the central square
        clip = processor(video, return_tensors="pt")["pixel_values"][0]
        assert clip.shape == (32, 3, 112, 112)
        inside = clip[..., 2:-2] * 50 + 30
        torch.testing.assert_close(inside, torch.full_like(inside, 200.0))

    def test_resizing_keeps_grey_levels(self, video):
        processor = EchoMENVideoProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_mean=[30.0], image_std=[50.0]
        )
        assert levels(processor(video, return_tensors="pt")["pixel_values"][0]) == list(range(13, 76, 2))


class TestInputs:
    def test_all_forms_of_one_video_agree(self, processor, video, echonet_dir):
        path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        echo = read_video(path)
        expected = processor(echo, return_tensors="pt")["pixel_values"]
        assert expected.abs().max() > 0.5
        for form in (path, str(path), path.read_bytes()):
            assert torch.equal(processor(form, return_tensors="pt")["pixel_values"], expected)
        colour = np.repeat(echo.frames[..., None], 3, axis=-1)
        for form in (
            echo.frames,
            torch.from_numpy(echo.frames),
            echo.frames[:, None],
            echo.frames[..., None],
            colour,
            [Image.fromarray(frame) for frame in colour],
            [Image.fromarray(frame) for frame in echo.frames],
        ):
            metadata = {"fps": echo.fps, "total_num_frames": echo.num_frames}
            found = processor(form, video_metadata=metadata, return_tensors="pt")["pixel_values"]
            torch.testing.assert_close(found, expected, atol=0.021, rtol=0)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_images_are_turned_as_exif_says(self, processor, video, orientation, mode):
        images = [Image.fromarray(frame).convert(mode) for frame in video[:40, :100]]
        for image in images:
            image.getexif()[0x112] = orientation
        shown = np.stack([np.asarray(ImageOps.exif_transpose(image)) for image in images])
        expected = processor(shown, return_tensors="pt")["pixel_values"]
        assert torch.equal(processor(images, return_tensors="pt")["pixel_values"], expected)

    def test_batch_of_files_and_of_arrays(self, processor, video, echonet_dir):
        paths = sorted((echonet_dir / "Videos").glob("*.avi"))[:3]
        together = processor(paths, return_tensors="pt")["pixel_values"]
        assert together.shape[0] == 3
        for path, clip in zip(paths, together):
            assert torch.equal(processor(path, return_tensors="pt")["pixel_values"][0], clip)
        assert processor([video, video[:40]], return_tensors="np")["pixel_values"].shape == (2, 32, 3, 112, 112)
        assert processor(np.stack([video, video])[:, :, None], return_tensors="pt")["pixel_values"].shape[0] == 2

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (np.zeros((64, 112), np.uint8), "frames, height, width"),
            (np.zeros((64, 112, 112, 7), np.uint8), "No axis"),
            (np.zeros((0, 112, 112), np.uint8), "frames, height, width"),
            (np.linspace(0, 1, 64 * 4).reshape(64, 2, 2), "0-255 scale"),
            (np.full((64, 2, 2), 300, np.int32), "0-255 scale"),
            ([], "empty list"),
            ([np.zeros((4, 64, 64), np.uint8)] * 5, "may be videos or frames"),
            ("missing.avi", "missing.avi: does not exist"),
        ],
    )
    def test_what_is_no_video_is_named(self, processor, bad, message):
        with pytest.raises(ValueError, match=message):
            processor(bad, return_tensors="pt")

    def test_frame_rate_to_sample_at_is_refused(self, processor, video):
        with pytest.raises(ValueError, match="video_metadata"):
            processor(video, fps=25)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_channels": 2}, "num_channels"),
            ({"image_mean": [1.0, 2.0]}, "image_mean"),
            ({"image_std": [0.0]}, "image_std"),
        ],
    )
    def test_options_that_cannot_work(self, options, message):
        with pytest.raises(ValueError, match=message):
            EchoMENVideoProcessor(**options)


@pytest.fixture(scope="module")
def screen():
    return export_clip(simulate_echo(1, num_frames=80).frames, 50.0, ExportSettings(width=640, height=480))


def test_the_fan_is_cut_out_of_a_screen_and_only_once(screen):
    processor = EchoMENVideoProcessor()
    video = EchoVideo(screen.frames, 50.0, "screen")
    cropped = processor.crop_to_sector(video)
    assert cropped.sector.shape == "fan"
    assert cropped.frames.shape[1:] == (cropped.sector.square[2],) * 2
    assert processor.crop_to_sector(cropped) is cropped
    expected = processor(cropped, return_tensors="pt")["pixel_values"]
    for given in (video, screen.frames):
        assert torch.equal(processor(given, return_tensors="pt")["pixel_values"], expected)
    assert torch.equal(processor.make_clips(video, [8]), processor.make_clips(cropped, [8]))


def test_the_whole_screen_is_used_if_the_fan_is_not_asked_for(screen):
    processor = EchoMENVideoProcessor(do_find_sector=False)
    video = EchoVideo(screen.frames, 50.0, "screen")
    assert processor.crop_to_sector(video) is video
    whole = processor(screen.frames, return_tensors="pt")["pixel_values"]
    assert torch.equal(
        EchoMENVideoProcessor()(screen.frames, do_find_sector=False, return_tensors="pt")["pixel_values"], whole
    )
    assert not torch.equal(processor(screen.frames, do_find_sector=True, return_tensors="pt")["pixel_values"], whole)


def test_a_clip_of_a_data_set_stays_as_it_is():
    clip = simulate_echo(1, num_frames=80).frames
    cropped = EchoMENVideoProcessor().crop_to_sector(EchoVideo(clip, 50.0, "clip"))
    assert cropped.sector.shape == "cropped"
    assert cropped.frames is clip


@pytest.mark.parametrize(("option", "before"), [("do_find_sector", False), ("short_videos", "zeros")])
def test_a_processor_whose_file_does_not_mention_an_option_works_as_before(option, before, tmp_path):
    processor = EchoMENVideoProcessor()
    processor.save_pretrained(tmp_path)
    assert getattr(EchoMENVideoProcessor.from_pretrained(tmp_path), option) == getattr(processor, option) != before
    path = tmp_path / "video_preprocessor_config.json"
    settings = json.loads(path.read_text())
    del settings[option]
    path.write_text(json.dumps(settings))
    assert getattr(EchoMENVideoProcessor.from_pretrained(tmp_path), option) == before
