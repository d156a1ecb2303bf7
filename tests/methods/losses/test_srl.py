import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echomen_hf.methods.losses.srl import (
    SRLLoss,
    Surrogates,
    enveloping_loss,
    fill_gaps,
    homogeneity_loss,
    surrogate_contrast,
)


def unit_vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


def unit(vector):
    return [x / math.hypot(*vector) for x in vector]


def test_losses_agree_with_their_definitions():
    surrogates, points, z = unit_vectors(6, 4), unit_vectors(9, 4, seed=1), unit_vectors(3, 4, seed=2)
    s, own = surrogates.tolist(), [4, 0, 4]
    expected = -sum(max(cosine(point, other) for other in s) for point in points.tolist()) / 9
    assert enveloping_loss(surrogates, points).item() == pytest.approx(expected, rel=1e-12)
    expected = sum(math.dist(a, b) ** 2 / 0.5**2 for a, b in zip(s, s[1:]))
    assert homogeneity_loss(surrogates, 0.5).item() == pytest.approx(expected, rel=1e-12)
    logits = [[cosine(feature, other) / 0.3 for other in s] for feature in z.tolist()]
    expected = -sum(math.log(math.exp(row[k]) / sum(map(math.exp, row))) for row, k in zip(logits, own)) / 3
    loss = surrogate_contrast(z, surrogates, torch.tensor(own), 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_worked_by_hand_on_a_circle():
    # Two surrogates at a right angle, and points along both of them, between them, and opposite to one.
    surrogates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    assert enveloping_loss(surrogates, points).item() == pytest.approx(-(1 + 1 + 0.8 + 0) / 4)
    assert homogeneity_loss(surrogates).item() == pytest.approx(2)


def test_empty_bins_lie_between_their_neighbours():
    vectors, seen = torch.zeros(100, 2, dtype=torch.float64), torch.zeros(100, dtype=torch.bool)
    vectors[[40, 44]] = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    seen[[40, 44]] = True
    filled, first = fill_gaps(vectors, seen)
    assert first == 40
    expected = torch.tensor([unit(v) for v in ([4, 0], [3, 1], [2, 2], [1, 3], [0, 4])], dtype=torch.float64)
    torch.testing.assert_close(filled, expected)


def test_running_means_of_unit_length():
    surrogates = Surrogates(2).double()
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    surrogates.with_batch(first, torch.tensor([50, 50, 30]), 0.9)
    torch.testing.assert_close(surrogates.vectors[50], torch.tensor(unit([1, 1]), dtype=torch.float64))
    second = torch.tensor([[0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    of_batch = surrogates.with_batch(second, torch.tensor([30]), 0.9)
    moved = unit([0.9 * 0.6, 0.9 * 0.8 - 0.1])
    torch.testing.assert_close(surrogates.vectors[30], torch.tensor(moved, dtype=torch.float64))
    assert of_batch[30].tolist() == [0.0, -1.0]  # its own mean, from which gradients come
    assert of_batch[50].tolist() == surrogates.vectors[50].tolist()
    assert surrogates.seen.nonzero().flatten().tolist() == [30, 50]


def test_loss_is_the_weighted_sum_of_its_parts(make_trainer_of):
    weights = {"contrast_weight": 2.0, "enveloping_weight": 3.0, "homogeneity_weight": 0.5}
    trainer, batch = make_trainer_of("srl", weights)
    model, labels = trainer.model, batch["labels"]
    outputs = model(pixel_values=batch["pixel_values"])
    loss, parts = trainer.method_loss(model, outputs, labels, 1)
    # All surrogates are those of this first batch, whose labels lie in bins of their own.
    assert len(set(labels.long().tolist())) == 4
    s, first = fill_gaps(model.surrogates.vectors, model.surrogates.seen)
    z = outputs.projection
    points = trainer.method_loss.points(z)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(2000))
    expected = [
        surrogate_contrast(z, s, labels.long() - first, 0.3),
        enveloping_loss(s, points),
        homogeneity_loss(s),
    ]
    names = ["loss_contrast", "loss_enveloping", "loss_homogeneity"]
    torch.testing.assert_close([parts[name] for name in names], expected)
    regression = (outputs.regression - labels).square().mean()
    torch.testing.assert_close(loss, regression + 2 * expected[0] + 3 * expected[1] + 0.5 * expected[2])
    loss.backward()
    assert model.projector.fc2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("labels", [[50.0], [50.0, 50.2], [0.0, 100.0]])
def test_finite_for_every_batch(labels, make_trainer_of):
    trainer, batch = make_trainer_of("srl")
    clips = batch["pixel_values"][: len(labels)]
    loss = trainer.compute_loss(trainer.model, {"pixel_values": clips, "labels": torch.tensor(labels)})
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in trainer.model.parameters() if p.grad is not None)


def test_surrogates_are_saved_with_checkpoints_and_left_out_of_the_final_model(run, tmp_path):
    model = run("srl")
    saved = load_file(tmp_path / "run" / "stage1" / "model.safetensors")
    seen = saved["surrogates.seen"]
    torch.testing.assert_close(saved["surrogates.vectors"][seen].norm(dim=1), torch.ones(int(seen.sum())))
    assert seen.any() and not any("surrogates" in name for name in model.state_dict())


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("num_points", 0), ("momentum", 1.0)])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=name):
        SRLLoss(np.array([50.0]), **{name: value})
