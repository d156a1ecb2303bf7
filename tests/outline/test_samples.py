"""Samples for the outliner: what they show, how they are kept, and how training changes them."""

import dataclasses

import numpy as np
import pytest
import torch

from echomen_hf.data.layouts.tables import LayoutError
from echomen_hf.data.tracings import read_tracings
from echomen_hf.outline.outliner import FRAME_OFFSETS
from echomen_hf.outline.samples import OutlineSamples, Sample, write_samples
from echomen_hf.outline.simulated_samples import SimulatedSamples
from echomen_hf.outline.traced_samples import TracedSamples
from echomen_hf.simulation import write_synthetic_echonet


OFFSETS = FRAME_OFFSETS
MIDDLE = OFFSETS.index(0.0)


def darker_inside(samples):
    """Share of the samples whose mask lies on what is darker than a band around it."""
    found = []
    for sample in samples:
        rows, columns = np.nonzero(sample.mask)
        wider = sample.mask.copy()
        for axis in (0, 1):
            for step in (-4, 4):
                wider |= np.roll(sample.mask, step, axis)
        assert 100 < len(rows) < 4000
        found.append(sample.frames[MIDDLE][sample.mask].mean() < sample.frames[MIDDLE][wider & ~sample.mask].mean())
    return np.mean(found)


@pytest.mark.parametrize(
    "shares", [{"whole_fan_share": 0.0}, {"whole_fan_share": 1.0}, {"export_share": 1.0, "whole_fan_share": 0.0}]
)
def test_the_mask_lies_on_the_cavity_however_the_clip_is_shown(shares):
    source = SimulatedSamples(8, seed=2, **{"other_share": 0.0, "export_share": 0.0, "moments": 2, **shares})
    samples = [sample for number in range(8) for sample in source.recording(number)]
    assert len(samples) == 16
    assert {sample.frames.shape for sample in samples} == {(7, 112, 112)}
    assert darker_inside(samples) > 0.8


def test_two_samples_of_a_recording_are_the_ends_of_a_beat():
    source = SimulatedSamples(8, seed=2, other_share=0.0, export_share=0.0)
    areas = np.array([[sample.mask.sum() for sample in source.recording(number)] for number in range(8)])  # (8, 4)
    assert (areas[:, 0] > areas[:, 1]).all()
    assert (areas[:, 0] >= 0.95 * areas.max(axis=1)).mean() > 0.7
    assert (areas[:, 1] <= 1.05 * areas.min(axis=1)).mean() > 0.7


def test_other_recordings_have_empty_masks():
    source = SimulatedSamples(4, seed=2, other_share=1.0)
    for number in range(4):
        samples = source.recording(number)
        assert len(samples) == 4
        assert not any(sample.mask.any() for sample in samples)
        assert all(sample.frames.any() for sample in samples)


def test_a_recording_depends_on_its_number_only():
    first, second = SimulatedSamples(10, seed=3).recording(7), SimulatedSamples(20, seed=3).recording(7)
    assert all((a.frames == b.frames).all() and (a.mask == b.mask).all() for a, b in zip(first, second, strict=True))
    other = SimulatedSamples(10, seed=4).recording(7)
    assert not (first[0].frames == other[0].frames).all()


class Numbered:
    """Recordings of one sample each, whose number is in the pixels."""

    settings = {"numbered": True}
    num_recordings = 70

    def __init__(self):
        self.made = []

    def recording(self, index):
        self.made.append(index)
        mask = np.zeros((8, 8), dtype=bool)
        mask[2:5, 1:4] = True
        return [Sample(np.full((7, 8, 8), index, dtype=np.uint8), mask)]


def test_samples_come_back_and_are_made_once(tmp_path):
    source = Numbered()
    paths = write_samples(source, tmp_path, progress=False)
    assert source.made == list(range(70))
    samples = OutlineSamples(paths, 8, OFFSETS, is_changed=False)
    assert len(samples) == 70
    for index in (0, 63, 64, 69):
        item = samples[index]
        assert torch.allclose(item["pixel_values"], torch.full((7, 8, 8), index / 255))
        assert item["labels"].sum() == 9 and item["labels"][3, 2] == 1
    paths[1].unlink()
    again = Numbered()
    write_samples(again, tmp_path, progress=False)
    assert again.made == list(range(64, 70))


def test_samples_of_other_settings_are_not_mixed(tmp_path):
    write_samples(SimulatedSamples(1), tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="samples of other settings"):
        write_samples(SimulatedSamples(1, seed=1), tmp_path, progress=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    source = SimulatedSamples(3, seed=5, other_share=0.0, export_share=0.0)
    return write_samples(source, tmp_path_factory.mktemp("samples"), progress=False)


def test_changes_depend_on_seed_epoch_and_index(simulated):
    samples, same = OutlineSamples(simulated, 112, OFFSETS, seed=1), OutlineSamples(simulated, 112, OFFSETS, seed=1)
    first = samples[2]["pixel_values"]
    assert torch.equal(first, same[2]["pixel_values"])
    samples.set_epoch(1)
    assert not torch.equal(first, samples[2]["pixel_values"])
    assert not torch.equal(first, OutlineSamples(simulated, 112, OFFSETS, seed=2)[2]["pixel_values"])


def test_the_samples_of_a_recording_stay_together_in_any_order(simulated):
    samples = OutlineSamples(simulated, 112, OFFSETS, seed=1)
    orders = []
    for epoch in range(6):
        samples.set_epoch(epoch)
        orders.append([samples[index]["recordings"] for index in range(len(samples))])
        assert sorted(orders[-1]) == [0] * 4 + [1] * 4 + [2] * 4
        assert all(len(set(orders[-1][start : start + 4])) == 1 for start in (0, 4, 8))
    assert len(set(map(tuple, orders))) > 1


def test_changed_masks_stay_on_the_cavity_on_both_sides(simulated):
    samples = OutlineSamples(simulated, 112, OFFSETS)
    kept, columns, without_neighbours = [], [], 0
    for epoch in range(8):
        samples.set_epoch(epoch)
        for index in range(len(samples)):
            item = samples[index]
            frames = (255 * item["pixel_values"]).numpy()
            kept.append(Sample(frames, item["labels"].numpy() > 0))
            columns.append(np.nonzero(kept[-1].mask)[1].mean())
            without_neighbours += bool((frames[0] == frames[1]).all())
            assert frames.min() >= 0 and frames.max() <= 255.001
    assert darker_inside(kept) > 0.8
    assert min(columns) < 50 and max(columns) > 62
    assert 0 < without_neighbours < len(kept) / 2


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("echonet") / "data"
    return write_synthetic_echonet(folder, 3, num_workers=0, progress=False, frames_range=(28, 40))


def test_traced_videos_give_samples(data_set):
    tracings = read_tracings(data_set)
    source = TracedSamples(tracings)
    assert source.num_recordings == 3
    samples = [sample for number in range(3) for sample in source.recording(number)]
    assert darker_inside(samples) > 0.8
    assert (samples[0].mask == tracings[0].mask(112, 112)).all()
    assert source.settings != TracedSamples(tracings[2:]).settings


def test_a_traced_frame_that_the_video_lacks_is_named(data_set):
    tracing = dataclasses.replace(read_tracings(data_set)[0], frame=500)
    with pytest.raises(LayoutError, match="frame 500 of it is traced"):
        TracedSamples([tracing]).recording(0)
