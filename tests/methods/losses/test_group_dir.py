import math

import pytest
import torch

from echomen_hf.methods.losses.group_dir import (
    GroupDIRLoss,
    group_contrast,
    label_groups,
    soft_group_loss,
    soft_group_targets,
)


LABELS = torch.tensor([22.3, 28.9, 41.0, 75.2], dtype=torch.float64)


def unit_vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def reference_contrast(projections, labels, num_groups, temperature):
    """The definition as sums over pairs in plain Python."""
    views = projections.shape[1]
    z = projections.flatten(0, 1).tolist()
    group = [math.floor(float(label) * num_groups / 100) for label in labels for _ in range(views)]
    similarity = [[sum(a * b for a, b in zip(x, y)) / temperature for y in z] for x in z]
    losses = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if group[j] == group[i]]
        weight = [1 if j in positives else abs(group[i] - group[j]) for j in range(len(z))]
        total = sum(weight[j] * math.exp(similarity[i][j]) for j in others)
        losses.append(-sum(math.log(math.exp(similarity[i][p]) / total) for p in positives) / len(positives))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_groups", [4, 10])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrast_agrees_with_the_definition(num_groups, temperature):
    z = unit_vectors(4, 2, 5)
    loss = group_contrast(z, LABELS, num_groups=num_groups, temperature=temperature)
    expected = reference_contrast(z, LABELS, num_groups, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_gradient():
    z = unit_vectors(4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: group_contrast(p, LABELS, num_groups=10), z)


def test_soft_labels_worked_by_hand():
    targets = soft_group_targets(torch.tensor([0, 1]), 4)
    torch.testing.assert_close(targets, torch.tensor([[4.0, 3, 2, 1], [3, 4, 3, 2]]) / torch.tensor([[10.0], [12]]))
    # Equal logits have probability 1/4 each, whatever the soft label.
    assert soft_group_loss(torch.zeros(2, 4), torch.tensor([0, 1])).item() == pytest.approx(math.log(4))
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    normaliser = math.log(math.exp(2) + 3)
    expected = -(0.4 * (2 - normaliser) + 0.6 * -normaliser)
    assert soft_group_loss(logits, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("num_groups", [1, 3, 10, 29, 97])
def test_every_label_has_a_group(num_groups):
    groups = label_groups(torch.tensor([0.0, 55.0, 99.999, 100.0]), num_groups)
    assert groups.tolist() == [0, int(55 * num_groups / 100), num_groups - 1, num_groups - 1]


def test_module_trains_the_regressor_of_the_own_group(make_trainer_of):
    trainer, batch = make_trainer_of("group_dir", {"contrast_weight": 0.5, "classification_weight": 2.0})
    model, labels = trainer.model, batch["labels"]
    assert model.config.num_experts == 10
    loss = trainer.compute_loss(model, batch)
    outputs = model(pixel_values=batch["pixel_values"].flatten(0, 1))
    groups = (labels // 10).long().repeat_interleave(2)
    own = torch.stack([row[group] for row, group in zip(outputs.expert_predictions, groups)])
    regression = (own - labels.repeat_interleave(2)).square().mean()
    contrast = group_contrast(outputs.projection.unflatten(0, (-1, 2)), labels, num_groups=10)
    classification = soft_group_loss(outputs.expert_weights.log(), groups)
    torch.testing.assert_close(loss, regression + 0.5 * contrast + 2 * classification)
    loss.backward()
    empty = set(range(10)) - set(groups.tolist())
    assert all(model.experts[group].weight.grad.abs().max() > 0 for group in set(groups.tolist()))
    assert all(not model.experts[group].weight.grad.any() for group in empty)
    assert model.regression_head.weight.grad is None


@pytest.mark.parametrize("prediction", ["largest", "mean"])
def test_prediction_of_the_finished_model(run, prediction):
    model = run("group_dir", options={"prediction": prediction})
    embedding = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(embedding=embedding).ejection_fraction
        probability = model.aggregator(embedding)
        experts = torch.cat([expert(embedding) for expert in model.experts], dim=1)
    if prediction == "mean":
        torch.testing.assert_close(found, (probability * experts).sum(dim=1))
    else:
        torch.testing.assert_close(found, experts.gather(1, probability.argmax(dim=1, keepdim=True))[:, 0])


def test_unknown_prediction():
    with pytest.raises(ValueError, match="prediction"):
        GroupDIRLoss(LABELS.numpy(), prediction="median")
