import math

import pytest
import torch

from echomen_hf.losses import ldw_supcon_loss
from echomen_hf.methods.losses.adacon import AdaConLoss, adacon_loss


def unit_vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def reference_loss(projections, labels, train_labels, scale, same):
    """The definition as sums over pairs in plain Python."""
    views = projections.shape[1]
    z = projections.flatten(0, 1).tolist()
    y = [float(label) for label in labels for _ in range(views)]
    sample = [i for i in range(len(labels)) for _ in range(views)]

    def below(label):
        return sum(other <= label for other in train_labels) / len(train_labels)

    losses = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and (sample[i] == sample[j] or same(y[i], y[j]))]
        total = 0.0
        for j in range(len(z)):
            if j != i:
                margin = 0 if j in positives else 2 * abs(below(y[i]) - below(y[j]))
                total += math.exp(scale * (sum(a * b for a, b in zip(z[i], z[j])) + margin))
        logits = [scale * sum(a * b for a, b in zip(z[i], z[p])) for p in positives]
        losses.append(-sum(math.log(math.exp(logit) / total) for logit in logits) / len(logits))
    return sum(losses) / len(losses)


LABELS = torch.tensor([22.3, 22.9, 41.0, 55.2], dtype=torch.float64)
TRAIN_LABELS = [15.0, 22.3, 30.0, 41.0, 52.0, 55.2, 58.0, 61.0]


@pytest.mark.parametrize("scale", [1.0, 3.0, 150.0])
def test_agrees_with_the_definition(scale):
    z = unit_vectors(4, 2, 5)
    reference = torch.tensor(TRAIN_LABELS, dtype=torch.float64)
    loss = adacon_loss(z, LABELS, scale=scale, reference_labels=reference)
    expected = reference_loss(z, LABELS, TRAIN_LABELS, scale, lambda a, b: False)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss = adacon_loss(z, LABELS, scale=scale, reference_labels=reference, label_bin_width=1.0)
    expected = reference_loss(z, LABELS, TRAIN_LABELS, scale, lambda a, b: int(a) == int(b))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_without_margins_it_is_plain_supcon():
    z = unit_vectors(4, 2, 5)
    plain = ldw_supcon_loss(z, LABELS, temperature=0.1, distance="none", label_bin_width=None)
    torch.testing.assert_close(adacon_loss(z, LABELS, scale=10.0, margin_scale=0.0), plain)
    assert adacon_loss(z, LABELS, scale=10.0) > plain


def test_gradient():
    z = unit_vectors(4, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: adacon_loss(p, LABELS, scale=5.0), z)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("labels", [[50.0], [50.0, 50.0, 50.0], [10.0, 50.0, 90.0]])
def test_finite_for_every_batch(views, labels):
    z = unit_vectors(len(labels), views, 4).float().requires_grad_()
    loss = adacon_loss(z, torch.tensor(labels), scale=1e3)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_full_precision_inside_autocast():
    z = unit_vectors(4, 2, 5).float()
    expected = adacon_loss(z, LABELS.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adacon_loss(z, LABELS.float()), expected)


def test_module_adds_the_weighted_contrast_to_the_squared_error(outputs_of):
    z = unit_vectors(4, 2, 5)
    outputs = outputs_of(regression=LABELS.repeat_interleave(2) + 3, projection=z.flatten(0, 1))
    loss, parts = AdaConLoss(torch.tensor(TRAIN_LABELS).numpy(), weight=0.2)(
        None, outputs, LABELS.repeat_interleave(2), 2
    )
    contrastive = adacon_loss(z, LABELS, reference_labels=torch.tensor(TRAIN_LABELS))
    assert loss.item() == pytest.approx(9 + 0.2 * contrastive.item())
    assert parts["loss_contrastive"].item() == pytest.approx(contrastive.item())


def test_scale_must_be_positive():
    with pytest.raises(ValueError, match="scale"):
        adacon_loss(unit_vectors(4, 2, 5), LABELS, scale=0.0)


def test_projector_is_trained(make_trainer_of):
    trainer, batch = make_trainer_of("adacon")
    trainer.compute_loss(trainer.model, batch).backward()
    assert trainer.model.projector.fc2.weight.grad.abs().max() > 0
