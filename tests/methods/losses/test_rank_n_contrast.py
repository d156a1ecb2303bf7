import math

import pytest
import torch

from echomen_hf.methods.losses.rank_n_contrast import rank_n_contrast_loss


def random_features(count, size=4, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_loss(features, labels, temperature):
    """The definition as sums over triples in plain Python."""
    count = len(labels)
    similarity = [[-math.dist(a, b) / temperature for b in features.tolist()] for a in features.tolist()]
    total = 0.0
    for i in range(count):
        for j in range(count):
            if j == i:
                continue
            distance = abs(labels[i] - labels[j])
            farther = [k for k in range(count) if k != i and abs(labels[i] - labels[k]) >= distance]
            total -= math.log(math.exp(similarity[i][j]) / sum(math.exp(similarity[i][k]) for k in farther))
    return total / (count * (count - 1))


@pytest.mark.parametrize("labels", [[20.0, 35.0, 41.0, 58.0, 66.5], [50.0, 50.0, 40.0, 60.0, 40.0], [55.0] * 5])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_agrees_with_the_definition(labels, temperature):
    features = random_features(5)
    loss = rank_n_contrast_loss(features, torch.tensor(labels, dtype=torch.float64), temperature=temperature)
    assert loss.item() == pytest.approx(reference_loss(features, labels, temperature), rel=1e-10)


def test_worked_by_hand():
    # On a line: 0 and 1 are at distance 1, 2 at distance 3 and 2. Temperature 1.
    features = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    labels = torch.tensor([50.0, 60.0, 80.0], dtype=torch.float64)

    def log_share(chosen, *others):
        return math.log(math.exp(-chosen) / sum(math.exp(-other) for other in others))

    # The farthest label of each anchor is compared with itself alone and costs nothing.
    expected = -(log_share(1, 1, 3) + log_share(1, 1, 2) + log_share(2, 2, 3)) / 6
    assert rank_n_contrast_loss(features, labels, temperature=1.0).item() == pytest.approx(expected)


def test_features_in_the_order_of_labels_cost_less():
    labels = torch.tensor([20.0, 40.0, 60.0, 80.0], dtype=torch.float64)
    ordered = labels[:, None] / 4
    shuffled = ordered[[2, 0, 3, 1]]
    assert rank_n_contrast_loss(ordered, labels) < rank_n_contrast_loss(shuffled, labels) - 1


def test_gradient():
    labels = torch.tensor([20.0, 35.0, 35.0, 58.0, 66.5], dtype=torch.float64)
    features = random_features(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: rank_n_contrast_loss(f, labels), features)


def test_order_of_samples_does_not_matter():
    labels = torch.tensor([20.0, 35.0, 35.0, 58.0, 66.5], dtype=torch.float64)
    features, order = random_features(5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        rank_n_contrast_loss(features, labels), rank_n_contrast_loss(features[order], labels[order])
    )


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("spread", [0.0, 60.0])
def test_finite_for_every_batch(count, scale, spread):
    features = (scale * random_features(count).float()).requires_grad_()
    loss = rank_n_contrast_loss(features, 20 + torch.linspace(0, spread, count), temperature=0.1)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


def test_full_precision_inside_autocast():
    features, labels = random_features(5).float(), torch.tensor([20.0, 35.0, 41.0, 58.0, 66.5])
    expected = rank_n_contrast_loss(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rank_n_contrast_loss(features, labels), expected)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature"):
        rank_n_contrast_loss(random_features(2), torch.tensor([1.0, 2.0]), temperature=0.0)


def test_encoder_learns_from_the_contrast_alone_and_the_head_from_labels_alone(make_trainer_of):
    trainer, batch = make_trainer_of("rank_n_contrast")
    model = trainer.model
    trainer.compute_loss(model, batch).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    outputs = model(pixel_values=batch["pixel_values"].flatten(0, 1))
    labels = batch["labels"].repeat_interleave(2)
    rank_n_contrast_loss(outputs.embedding, labels).backward(retain_graph=True)
    torch.testing.assert_close(found["encoder.stem.0.weight"], model.encoder.stem[0].weight.grad)
    (outputs.regression - labels).abs().mean().backward()
    torch.testing.assert_close(found["regression_head.weight"], model.regression_head.weight.grad)
    assert {name.split(".")[0] for name in found} == {"encoder", "regression_head"}


def test_stage_2_trains_one_head_by_the_absolute_error(make_trainer_of):
    trainer, batch = make_trainer_of("rank_n_contrast", stage=2)
    loss = trainer.compute_loss(trainer.model, batch)
    outputs = trainer.model(pixel_values=batch["pixel_values"])
    torch.testing.assert_close(loss, (outputs.ejection_fraction - batch["labels"]).abs().mean())
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained == {"experts.0.weight", "experts.0.bias"}
