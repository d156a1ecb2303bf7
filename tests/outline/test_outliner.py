"""The outliner: shapes, saving, and masks in the pixels of any picture."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from echomen_hf.model.sector_echomen import Sector
from echomen_hf.outline import LeftVentricleOutliner, LeftVentricleOutlinerConfig
from echomen_hf.outline.outliner import _loss, neighbours
from echomen_hf.outline.picture_square import PictureSquare


@pytest.fixture
def outliner():
    torch.manual_seed(0)
    return LeftVentricleOutliner(LeftVentricleOutlinerConfig(hidden_sizes=(4, 8))).eval()


class MarksBright(LeftVentricleOutliner):
    """Marks what is bright in the frame itself, so that it is known where masks must lie."""

    def forward(self, pixel_values):
        middle = self.config.frame_offsets.index(0.0)
        return type("Output", (), {"logits": pixel_values[:, middle : middle + 1] - 0.5})


@pytest.fixture
def marks_bright():
    return MarksBright(LeftVentricleOutlinerConfig(hidden_sizes=(4, 8)))


def test_logits_have_the_size_of_the_frames_and_the_loss_falls(outliner):
    outliner.train()
    pixel_values = torch.rand(4, 7, 112, 112, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(4, 112, 112, dtype=torch.bool)
    labels[:3, 30:70, 40:80] = True
    pixel_values[:3, :, 30:70, 40:80] *= 0.2
    optimizer = torch.optim.AdamW(outliner.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        output = outliner(pixel_values=pixel_values, labels=labels)
        assert output.logits.shape == (4, 1, 112, 112)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_of_the_right_masks_is_nothing_and_of_empty_ones_too(outliner):
    labels = torch.zeros(2, 112, 112)
    labels[0, 20:60, 20:60] = 1
    for recordings in (None, torch.tensor([3, 3])):
        assert _loss(40 * (labels - 0.5), labels, recordings).item() == pytest.approx(0, abs=1e-4)
        assert _loss(-40 * (labels - 0.5), labels, recordings).item() > 1


def test_the_loss_tells_a_wrong_ratio_of_areas_from_wrong_areas():
    labels, larger, smaller = torch.zeros(3, 2, 112, 112)
    labels[:, 20:60, 20:60] = 1
    larger[:, 20:64, 20:60] = 1
    smaller[:, 20:56, 20:60] = 1
    alike, apart = larger, torch.stack([larger[0], smaller[1]])

    def ratio_error(masks):
        logits = 40 * (masks - 0.5)
        of_one, of_two = (_loss(logits, labels, torch.tensor([0, number])).item() for number in (0, 1))
        return of_one - of_two

    assert ratio_error(alike) == pytest.approx(0, abs=1e-5)
    assert ratio_error(apart) == pytest.approx(np.log((44 * 40 + 20) / (36 * 40 + 20)), rel=1e-3)


def test_saved_and_loaded_it_is_the_same(outliner, tmp_path):
    outliner.save_pretrained(tmp_path)
    pixel_values = torch.rand(2, 7, 112, 112)
    for loaded in (LeftVentricleOutliner.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is LeftVentricleOutliner
        assert loaded.config.hidden_sizes == [4, 8]
        assert torch.equal(loaded.eval()(pixel_values).logits, outliner(pixel_values).logits)
    assert isinstance(outliner(pixel_values, return_dict=False), tuple)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hidden_size": (4, 8)}, "unknown arguments"),
        ({"image_size": 110}, "cannot be halved"),
        ({"frame_offsets": (-0.04, 0.04)}, "must hold 0"),
        ({"hidden_sizes": (0, 8)}, "positive"),
    ],
)
def test_configurations_that_make_no_network_are_refused(options, message):
    with pytest.raises(Exception, match=message):
        LeftVentricleOutlinerConfig(**{"hidden_sizes": (4, 8), **options})


def test_neighbours_keep_their_distance_in_time():
    offsets = (-0.04, 0.0, 0.04)
    assert neighbours(np.array([10]), 100, 50.0, offsets).tolist() == [[8, 10, 12]]
    assert neighbours(np.array([10]), 100, 25.0, offsets).tolist() == [[9, 10, 11]]
    assert neighbours(np.array([0, 99]), 100, 100.0, offsets).tolist() == [[0, 0, 4], [95, 99, 99]]


@pytest.mark.parametrize("shape", [(112, 112), (200, 300), (301, 203), (64, 64)])
def test_masks_lie_where_they_were_seen_in_any_picture(marks_bright, shape):
    frames = np.zeros((5, *shape), dtype=np.uint8)
    rows, columns = slice(shape[0] // 3, shape[0] // 2), slice(shape[1] // 4, shape[1] // 2)
    frames[:, rows, columns] = 255
    masks = marks_bright.predict_masks(frames, 50.0, batch_size=2)
    assert masks.shape == frames.shape
    assert masks.dtype == bool
    inside = frames > 0
    assert 2 * (masks & inside).sum() / (masks.sum() + inside.sum()) > 0.97


def test_masks_on_a_screen_lie_within_the_fan(marks_bright):
    frames = np.zeros((4, 240, 320), dtype=np.uint8)
    frames[:, 100:150, 140:180] = 255
    frames[:, 5:20, 5:60] = 255  # text
    # a fan that overhangs the picture above
    sector = Sector((60, 0, 260, 190), "fan", 0.9, (50, -10, 200), (150.0, -10.0), 0.78, 200.0)
    masks = marks_bright.predict_masks(frames, 50.0, sector=sector)
    assert not masks[:, :30, :70].any()
    inside = frames[:, 100:150, 140:180] > 0
    assert masks[:, 100:150, 140:180].sum() > 0.95 * inside.sum()
    assert masks.sum() < 1.05 * inside.sum()


def test_the_batch_size_changes_nothing(outliner):
    frames = np.random.default_rng(0).integers(0, 255, (7, 112, 112)).astype(np.uint8)
    whole = outliner.predict_masks(frames, 50.0)
    assert (outliner.predict_masks(frames, 50.0, batch_size=3) == whole).all()


def test_some_frames_have_the_masks_that_they_have_among_all(outliner):
    frames = np.random.default_rng(0).integers(0, 255, (40, 60, 90)).astype(np.uint8)
    numbers = np.array([0, 17, 18, 39])
    some = outliner.predict_masks(frames, 50.0, numbers=numbers)
    assert (some == outliner.predict_masks(frames, 50.0)[numbers]).all()


@pytest.mark.parametrize("frames", [np.zeros((3, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8)])
def test_frames_of_another_kind_are_refused(outliner, frames):
    with pytest.raises(ValueError, match="uint8 of shape"):
        outliner.predict_masks(frames, 50.0)
    with pytest.raises(ValueError, match="positive"):
        outliner.predict_masks(np.zeros((3, 64, 64), np.uint8), 0.0)


def test_a_square_is_cut_out_as_the_fan_finder_does_it():
    frames = np.random.default_rng(0).integers(0, 255, (3, 240, 320)).astype(np.uint8)
    sector = Sector((60, 0, 260, 112), "fan", 0.9, (100, 20, 112), (156.0, 20.0), 0.7, 112.0)
    assert (PictureSquare.of(frames, sector).cut_out(frames, 112) == sector.crop(frames)).all()
