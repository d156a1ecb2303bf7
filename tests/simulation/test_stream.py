import itertools

import numpy as np
import pytest
import torch.distributed
from torch.utils.data import DataLoader

from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.simulation import SimulatedEchoStream, SimulatedVideos


SMALL = {"image_size": 32, "clip_spec": ClipSpec(num_frames=4, sampling_period=8)}


def test_an_item_depends_on_seed_and_number_only():
    stream = SimulatedEchoStream(7, num_clips=3, **SMALL)
    items = list(stream)
    assert [item["index"] for item in items] == [0, 1, 2]
    again = SimulatedEchoStream(7, first_clip=2, **SMALL)
    late = next(iter(again))
    assert late["index"] == 2
    assert np.array_equal(late["frames"], items[2]["frames"])
    assert not np.array_equal(late["frames"], SimulatedEchoStream(8, **SMALL).item(2)["frames"])


def test_the_frames_of_an_item_are_those_of_the_clip_and_its_rate_is_theirs():
    item = SimulatedEchoStream(7, **SMALL).item(0)
    assert item["frames"].shape == (4, 32, 32)
    assert item["frames"].dtype == np.uint8
    assert item["fps"] == pytest.approx(50 / 8)
    whole = SimulatedEchoStream(7, image_size=32).item(0)
    assert len(whole["frames"]) > 30
    assert whole["fps"] == SimulatedVideos(1, 7)[0]["fps"]
    assert whole["ejection_fraction"] == item["ejection_fraction"]


def test_loader_processes_share_the_items_between_them():
    stream = SimulatedEchoStream(7, num_clips=5, transform=lambda item: item["index"], **SMALL)
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(loader) == [0, 1, 2, 3, 4]


def test_ranks_share_the_items_between_them(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        seen.append([item["index"] for item in SimulatedEchoStream(7, num_clips=5, **SMALL)])
    assert seen == [[0, 3], [1, 4], [2]]


def test_a_stream_has_no_end_unless_one_is_set(monkeypatch):
    stream = SimulatedEchoStream(7, transform=lambda item: item["index"], **SMALL)
    monkeypatch.setattr(stream, "item", lambda index: {"index": index})
    assert list(itertools.islice(stream, 1000)) == list(range(1000))
