import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from echomen_hf import load_echonet_dynamic, read_video
from echomen_hf.data import EvaluationClips, TrainingClips, collate_clips, pixel_statistics, with_pixel_values
from echomen_hf.data.clip_dataset import video_length_and_rate
from echomen_hf.model.clip_sampling_echomen import protocol_starts


@pytest.fixture(scope="module")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir, split="train")


def unpacked(clips, index):
    """Pixel values of one item."""
    return with_pixel_values(collate_clips([clips[index]]))["pixel_values"][0]


class TestTrainingClips:
    def test_item(self, videos, tiny_processor):
        item = TrainingClips(videos, tiny_processor)[0]
        assert item["frames"].shape == (8, 32, 32)
        assert item["frames"].dtype == torch.uint8
        assert item["labels"] == videos[0]["ejection_fraction"]

    def test_two_views_are_crops_of_one_clip(self, videos, tiny_processor):
        first, second = unpacked(TrainingClips(videos, tiny_processor, num_views=2, crop_padding=4), 1)
        assert first.shape == (8, 1, 32, 32)
        assert not torch.equal(first, second)
        # Undoing the right pair of shifts makes the middle of both views equal.
        middle = first[..., 8:24, 8:24]
        shifts = [(y, x) for y in range(-8, 9) for x in range(-8, 9)]
        assert any(torch.equal(middle, second[..., 8 + y : 24 + y, 8 + x : 24 + x]) for y, x in shifts)

    def test_without_padding_views_are_equal(self, videos, tiny_processor):
        views = unpacked(TrainingClips(videos, tiny_processor, num_views=2, crop_padding=0), 1)
        assert torch.equal(views[0], views[1])

    def test_clips_depend_on_seed_epoch_and_video_alone(self, videos, tiny_processor):
        def draw(seed, epoch, index=3):
            clips = TrainingClips(videos, tiny_processor, 2, 4, seed)
            clips.set_epoch(epoch)
            return unpacked(clips, index)

        assert torch.equal(draw(0, 5), draw(0, 5))
        assert not torch.equal(draw(0, 5), draw(0, 6))
        assert not torch.equal(draw(0, 5), draw(1, 5))

    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_number_of_loader_processes_does_not_matter(self, videos, tiny_processor, num_workers):
        def batches(num_workers):
            clips = TrainingClips(videos, tiny_processor, 2, 4)
            loader = DataLoader(
                clips,
                batch_size=8,
                num_workers=num_workers,
                collate_fn=collate_clips,
                persistent_workers=num_workers > 0,
            )
            found = []
            for epoch in range(2):
                clips.set_epoch(epoch)
                found += [with_pixel_values(batch)["pixel_values"] for batch in loader]
            return found

        for alone, shared in zip(batches(0), batches(num_workers)):
            assert torch.equal(alone, shared)

    def test_unpadded_clip_is_that_of_the_processor(self, videos, tiny_processor):
        clips = TrainingClips(videos, tiny_processor, crop_padding=0, seed=4)
        video = read_video(videos[2]["video"])
        found = unpacked(clips, 2)
        starts = range(video.num_frames)
        assert any(torch.equal(found, tiny_processor.make_clips(video, [start])[0]) for start in starts)

    def test_empty_split(self, tiny_processor):
        with pytest.raises(ValueError, match="training split holds no video"):
            TrainingClips([], tiny_processor)


class TestEvaluationClips:
    @pytest.mark.parametrize("protocol", ["center", "windows", "3", "all"])
    def test_clips_of_the_protocol_in_order(self, videos, tiny_processor, protocol):
        clips = EvaluationClips(videos, tiny_processor, protocol)
        expected = [
            position
            for position, row in enumerate(videos)
            for _ in protocol_starts(protocol, row["num_frames"], row["fps"], tiny_processor.clip_spec)
        ]
        assert clips.video_index.tolist() == expected
        assert len(clips) == len(expected)
        assert clips.labels.tolist() == list(videos["ejection_fraction"])

    def test_item_is_the_processors_clip(self, videos, tiny_processor):
        clips = EvaluationClips(videos, tiny_processor, "windows")
        for index in (0, len(clips) - 1):
            row = videos[int(clips.video_index[index])]
            video = read_video(row["video"])
            starts = protocol_starts("windows", video.num_frames, video.fps, tiny_processor.clip_spec)
            position = index - int(np.flatnonzero(clips.video_index == clips.video_index[index])[0])
            expected = tiny_processor.make_clips(video, starts)[position]
            assert torch.equal(unpacked(clips, index), expected)
            assert clips[index]["labels"] == row["ejection_fraction"]


def test_length_and_rate_come_from_the_file_where_the_list_is_silent(videos):
    row = videos[0]
    stated = video_length_and_rate(row)
    assert stated == (row["num_frames"], row["fps"])
    for missing in ({"num_frames": None}, {"fps": float("nan")}):
        assert video_length_and_rate({**row, **missing}) == pytest.approx(stated)


class TestPixelStatistics:
    def test_agree_with_numpy_over_all_frames(self, videos, tiny_processor):
        pixels = np.concatenate(
            [tiny_processor.resize_frames(read_video(row["video"]).frames).numpy().ravel() for row in videos]
        ).astype(np.float64)
        mean, std = pixel_statistics(videos, tiny_processor, num_videos=1000)
        assert mean == pytest.approx(pixels.mean(), rel=1e-9)
        assert std == pytest.approx(pixels.std(), rel=1e-9)

    def test_drawn_videos_depend_on_the_seed(self, videos, tiny_processor):
        first = pixel_statistics(videos, tiny_processor, num_videos=3, seed=1)
        assert first == pixel_statistics(videos, tiny_processor, num_videos=3, seed=1)
        assert first != pixel_statistics(videos, tiny_processor, num_videos=3, seed=2)


def test_collation_stacks_clips_and_labels():
    samples = [{"pixel_values": torch.full((2, 8, 1, 4, 4), float(i)), "labels": 50.0 + i} for i in range(3)]
    batch = collate_clips(samples)
    assert batch["pixel_values"].shape == (3, 2, 8, 1, 4, 4)
    assert batch["labels"].tolist() == [50.0, 51.0, 52.0]
    assert batch["labels"].dtype == torch.float32
