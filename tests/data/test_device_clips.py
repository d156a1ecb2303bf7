import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from echomen_hf import EchoMENVideoProcessor
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.data.device_clips import pack_clip, random_shift


@pytest.fixture
def make_processor(tiny_config):
    def make(**options):
        tiny_config.num_channels = options.pop("num_channels", 1)
        return EchoMENVideoProcessor.for_model(tiny_config, **options)

    return make


def frames_of(generator, num_frames=8):
    return generator.integers(0, 256, size=(num_frames, 32, 32), dtype=np.uint8)


def cropped_on_the_host(frames, processor, shift, padding=6):
    """The same clip by arithmetic on floating point numbers: normalise, pad in time and space, cut out."""
    clip = processor.normalize_frames(torch.from_numpy(frames))
    clip = torch.cat([clip, clip.new_zeros(processor.num_frames - len(clip), *clip.shape[1:])])
    padded = torch.nn.functional.pad(clip, (padding,) * 4)
    top, left = (padding + value for value in shift.tolist())
    return padded[..., top : top + 32, left : left + 32]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_channels": 3, "image_mean": 31.7, "image_std": 48.3},
        {"num_channels": 3, "image_mean": [31.7, 40.1, 12.9], "image_std": [48.3, 50.7, 47.1]},
        {"do_rescale": True, "rescale_factor": 1 / 255, "image_mean": 0.13, "image_std": 0.2},
        {"do_normalize": False},
    ],
)
def test_pixel_values_are_those_of_the_processor_bit_for_bit(make_processor, options):
    processor, generator = make_processor(**options), np.random.default_rng(0)
    clips = [frames_of(generator, length) for length in (8, 3, 8, 1)]
    shifts = torch.stack([torch.stack([random_shift(6, generator) for _ in range(2)]) for _ in clips])
    packed = [{**pack_clip(clip, processor, views), "labels": 50.0} for clip, views in zip(clips, shifts)]
    batch = with_pixel_values(collate_clips(packed))
    assert batch.keys() == {"pixel_values", "labels"}
    assert batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_values"].shape == (4, 2, 8, processor.num_channels, 32, 32)
    for clip, views, made in zip(clips, shifts, batch["pixel_values"]):
        for shift, view in zip(views, made):
            assert torch.equal(view, cropped_on_the_host(clip, processor, shift))


@pytest.mark.parametrize("shift", [None, torch.zeros(2, dtype=torch.int64)])
def test_one_view_has_no_dimension_for_views(tiny_processor, shift):
    clip = frames_of(np.random.default_rng(0))
    batch = with_pixel_values(collate_clips([{**pack_clip(clip, tiny_processor, shift), "labels": 50.0}] * 3))
    assert batch["pixel_values"].shape == (3, 8, 1, 32, 32)
    assert torch.equal(batch["pixel_values"][2], tiny_processor.normalize_frames(torch.from_numpy(clip)))


def test_clips_of_differently_normalised_sets_share_a_batch(make_processor):
    clip = frames_of(np.random.default_rng(0))
    processors = [make_processor(image_mean=30.0), make_processor(image_mean=90.0, image_std=20.0)]
    batch = collate_clips([{**pack_clip(clip, processor), "labels": 50.0} for processor in processors])
    for processor, made in zip(processors, with_pixel_values(batch)["pixel_values"]):
        assert torch.equal(made, processor.normalize_frames(torch.from_numpy(clip)))


def test_window_outside_the_frame_is_empty(tiny_processor):
    clip = np.full((8, 32, 32), 200, dtype=np.uint8)
    batch = collate_clips([{**pack_clip(clip, tiny_processor, torch.tensor([32, 0])), "labels": 50.0}])
    assert not with_pixel_values(batch)["pixel_values"].any()


def test_random_shift_moves_content_and_fills_with_zeros(tiny_processor):
    clip = np.zeros((8, 32, 32), dtype=np.uint8)
    clip[:, 16, 16] = 255
    positions, generator = set(), np.random.default_rng(0)
    for _ in range(200):
        packed = pack_clip(clip, tiny_processor, random_shift(2, generator))
        moved = with_pixel_values(collate_clips([{**packed, "labels": 50.0}]))["pixel_values"][0, 0, 0]
        assert moved.argmax() == (moved == moved.max()).nonzero()[0] @ torch.tensor([32, 1])
        positions.add(tuple((moved == moved.max()).nonzero()[0].tolist()))
    assert positions == {(y, x) for y in range(14, 19) for x in range(14, 19)}


def test_frames_stay_bytes_until_they_are_unpacked(tiny_processor):
    packed = {**pack_clip(frames_of(np.random.default_rng(0)), tiny_processor), "labels": 50.0}
    [batch] = DataLoader([packed] * 2, batch_size=2, num_workers=1, collate_fn=collate_clips)
    assert batch["frames"].dtype == torch.uint8
    assert sum(value.nbytes for name, value in batch.items() if name != "frames") < 0.2 * batch["frames"].nbytes


def test_other_batches_are_left_alone():
    batch = {"pixel_values": torch.zeros(2, 8, 1, 4, 4), "labels": torch.zeros(2)}
    assert with_pixel_values(batch) == batch


def test_device(tiny_processor):
    packed = {**pack_clip(frames_of(np.random.default_rng(0)), tiny_processor), "labels": 50.0}
    assert with_pixel_values(collate_clips([packed]), "cpu")["pixel_values"].device.type == "cpu"
