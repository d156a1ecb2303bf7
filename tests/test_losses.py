import math

import pytest
import torch

from echomen_hf.labels import ExpertWeightTable
from echomen_hf.losses import (
    LDWSupConLoss,
    ReweightedRegressionLoss,
    label_distances,
    ldw_supcon_loss,
    negative_log_weights,
    reweighted_regression_loss,
)


def unit_vectors(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def reference_loss(projections, labels, temperature=0.1, bin_width=1.0, distance=lambda a, b: abs(a - b)):
    """Equations 1 and 2 as sums over pairs in plain Python, averaged over the anchors that have a positive."""
    num_views = projections.shape[1]
    z = projections.flatten(0, 1).tolist()
    y = [float(label) for label in labels for _ in range(num_views)]
    sample = [i for i in range(len(labels)) for _ in range(num_views)]
    indices = range(len(z))

    def similarity(i, j):
        return sum(a * b for a, b in zip(z[i], z[j])) / temperature

    def same(i, j):
        if bin_width is None:
            return sample[i] == sample[j]
        return sample[i] == sample[j] or math.floor(y[i] / bin_width) == math.floor(y[j] / bin_width)

    losses = []
    for i in indices:
        positives = [j for j in indices if j != i and same(i, j)]
        negatives = [j for j in indices if j != i and not same(i, j)]
        if not positives:
            continue
        total = sum(math.exp(distance(y[i], y[k])) for k in negatives)
        beta = {j: len(negatives) * math.exp(distance(y[i], y[j])) / total for j in negatives}
        denominator = sum(math.exp(similarity(i, j)) for j in positives)
        denominator += sum(beta[j] * math.exp(similarity(i, j)) for j in negatives)
        losses.append(-sum(math.log(math.exp(similarity(i, p)) / denominator) for p in positives) / len(positives))
    return sum(losses) / len(losses)


class TestLabelDistances:
    labels = torch.tensor([20.0, 40.0, 70.0], dtype=torch.float64)

    def test_l1_is_in_standard_deviations(self):
        expected = torch.tensor([[0, 2, 5], [2, 0, 3], [5, 3, 0]], dtype=torch.float64)
        torch.testing.assert_close(label_distances(self.labels, "l1", label_std=10.0), expected)

    def test_l2_is_squared_and_scaled(self):
        expected = 0.5 * torch.tensor([[0, 4, 25], [4, 0, 9], [25, 9, 0]], dtype=torch.float64)
        torch.testing.assert_close(label_distances(self.labels, "l2", 0.5, label_std=10.0), expected)

    def test_cdf_is_twice_the_difference_of_ranks(self):
        training_labels = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0], dtype=torch.float64)
        # Share of training labels not above 20, 40 and 70: 2/8, 4/8 and 7/8.
        expected = torch.tensor([[0, 0.5, 1.25], [0.5, 0, 0.75], [1.25, 0.75, 0]], dtype=torch.float64)
        distances = label_distances(self.labels, "cdf", reference_labels=training_labels)
        torch.testing.assert_close(distances, expected)

    def test_without_a_training_spread_that_of_the_batch_is_taken(self):
        std = ((20 - 130 / 3) ** 2 + (40 - 130 / 3) ** 2 + (70 - 130 / 3) ** 2) / 3
        assert label_distances(self.labels)[0, 1].item() == pytest.approx(20 / math.sqrt(std))

    def test_identical_labels_are_at_distance_zero(self):
        same = torch.full((3,), 50.0)
        for distance in ("l1", "l2", "cdf", "none"):
            assert torch.equal(label_distances(same, distance), torch.zeros(3, 3))

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="Unknown label distance 'l3'"):
            label_distances(self.labels, "l3")


class TestNegativeLogWeights:
    def test_hand_worked(self):
        # One anchor with negatives at distances ln 1, ln 2 and ln 3: beta = 3 * (1, 2, 3) / 6.
        distances = torch.tensor([[0.0, 0.0, math.log(2), math.log(3)]], dtype=torch.float64).expand(4, 4)
        negatives = torch.tensor([[False, True, True, True]]).expand(4, 4)
        beta = negative_log_weights(distances, negatives)[0].exp()
        torch.testing.assert_close(beta, torch.tensor([1.0, 0.5, 1.0, 1.5], dtype=torch.float64))

    @pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
    def test_mean_over_negatives_is_one(self, scale):
        generator = torch.Generator().manual_seed(1)
        distances = scale * torch.rand(12, 12, generator=generator, dtype=torch.float64)
        negatives = torch.rand(12, 12, generator=generator) < 0.6
        beta = negative_log_weights(distances, negatives).exp()
        means = (beta * negatives).sum(1) / negatives.sum(1)
        torch.testing.assert_close(means, torch.ones(12, dtype=torch.float64))
        assert (beta[~negatives] == 1).all()

    def test_distances_beyond_the_range_of_exp(self):
        distances = torch.tensor([[0.0, 2000.0, 1000.0]]).expand(3, 3)
        log_beta = negative_log_weights(distances, torch.tensor([[False, True, True]]).expand(3, 3))
        assert log_beta[0, 1].item() == pytest.approx(math.log(2))
        assert log_beta.isfinite().all()

    def test_anchor_without_negatives(self):
        assert torch.equal(
            negative_log_weights(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)), torch.zeros(2, 2)
        )


class TestContrastiveLoss:
    labels = torch.tensor([22.3, 22.9, 41.0, 55.2, 63.7], dtype=torch.float64)

    @pytest.mark.parametrize(
        ("num_views", "bin_width"), [(1, 1.0), (1, 15.0), (2, 1.0), (2, 15.0), (2, None), (3, 1.0), (3, None)]
    )
    def test_agrees_with_the_equations(self, num_views, bin_width):
        z = unit_vectors(5, num_views, 6)
        loss = ldw_supcon_loss(z, self.labels, label_bin_width=bin_width, label_std=12.4)
        expected = reference_loss(z, self.labels, bin_width=bin_width, distance=lambda a, b: abs(a - b) / 12.4)
        assert loss.item() == pytest.approx(expected, rel=1e-12)

    def test_hand_worked(self):
        # Samples A and B with two views each on a line; z = 1 or -1, temperature 1, distance ln 3 for every pair.
        z = torch.tensor([[[1.0], [1.0]], [[-1.0], [-1.0]]], dtype=torch.float64)
        labels = torch.tensor([20.0, 80.0], dtype=torch.float64)
        # Both negatives of an anchor are equally far, so beta = 1 and the loss is -ln(e / (e + 2 / e)).
        loss = ldw_supcon_loss(z, labels, temperature=1.0, label_std=60 / math.log(3))
        assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 2 / math.e)))

    def test_far_negatives_count_more(self):
        # The anchor at 20 has negatives at 30 and 80; only which of the two is similar to it differs.
        labels = torch.tensor([20.0, 20.0, 30.0, 80.0], dtype=torch.float64)
        anchor, away = [1.0, 0.0], [0.0, 1.0]
        near_is_similar = torch.tensor([anchor, anchor, anchor, away], dtype=torch.float64)
        far_is_similar = torch.tensor([anchor, anchor, away, anchor], dtype=torch.float64)
        loss = {
            name: ldw_supcon_loss(z, labels, label_std=12.0)
            for name, z in (("near", near_is_similar), ("far", far_is_similar))
        }
        assert loss["far"] > loss["near"] + 1
        plain = [ldw_supcon_loss(z, labels, distance="none") for z in (near_is_similar, far_is_similar)]
        torch.testing.assert_close(plain[0], plain[1])

    def test_constant_distance_is_plain_supcon(self):
        labels = torch.tensor([10.0, 30.0], dtype=torch.float64)
        z = unit_vectors(2, 3, 5)
        supcon = reference_loss(z, labels, distance=lambda a, b: 0.0)
        assert ldw_supcon_loss(z, labels, distance="none").item() == pytest.approx(supcon, rel=1e-12)
        # With two label values all negatives of an anchor are at one distance, whatever it is.
        for scale in (0.3, 7.0):
            assert ldw_supcon_loss(z, labels, distance_scale=scale).item() == pytest.approx(supcon, rel=1e-12)

    def test_order_of_samples_and_views_does_not_matter(self):
        z = unit_vectors(5, 2, 6)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(ldw_supcon_loss(z, self.labels), ldw_supcon_loss(z[order], self.labels[order]))
        torch.testing.assert_close(ldw_supcon_loss(z, self.labels), ldw_supcon_loss(z.flip(1), self.labels))

    @pytest.mark.parametrize("distance", ["l1", "l2", "cdf", "none"])
    def test_gradient(self, distance):
        z = unit_vectors(4, 2, 3).requires_grad_()
        labels = torch.tensor([20.0, 20.5, 45.0, 60.0], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda p: ldw_supcon_loss(p, labels, distance=distance), z)

    def test_one_view_without_a_shared_bin_is_a_zero_with_gradient(self):
        z = unit_vectors(3, 1, 4).requires_grad_()
        loss = ldw_supcon_loss(z, torch.tensor([20.0, 40.0, 60.0], dtype=torch.float64))
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(z.grad, torch.zeros_like(z))

    @pytest.mark.parametrize("num_samples", [1, 2, 20])
    @pytest.mark.parametrize("num_views", [1, 2])
    @pytest.mark.parametrize("spread", [0.0, 0.4, 60.0])
    @pytest.mark.parametrize("scale", [1.0, 1e4])
    def test_finite_for_every_batch(self, num_samples, num_views, spread, scale):
        z = unit_vectors(num_samples, num_views, 8, dtype=torch.float32).requires_grad_()
        labels = 30 + torch.linspace(0, spread, num_samples)
        loss = ldw_supcon_loss(z, labels, temperature=0.01, distance_scale=scale)
        loss.backward()
        assert loss.isfinite()
        assert z.grad.isfinite().all()

    def test_collapsed_projections_are_finite(self):
        z = torch.ones(4, 2, 1).requires_grad_()
        loss = ldw_supcon_loss(z, torch.tensor([10.0, 30.0, 50.0, 70.0]))
        loss.backward()
        # One positive and six negatives of mean weight 1, all alike: the loss is ln 7.
        assert loss.item() == pytest.approx(math.log(7), rel=1e-5)
        assert z.grad.isfinite().all()

    def test_full_precision_inside_autocast(self):
        z = unit_vectors(5, 2, 6, dtype=torch.float32)
        labels = self.labels.float()
        expected = ldw_supcon_loss(z, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = ldw_supcon_loss(z, labels)
            from_half = ldw_supcon_loss(z.bfloat16(), labels)
        assert torch.equal(loss, expected)
        assert from_half.dtype == torch.float32

    def test_wrong_shapes_and_values(self):
        z = unit_vectors(5, 2, 6)
        with pytest.raises(ValueError, match=r"labels of shape \(N,\), got \(5, 2, 6\) and \(4,\)"):
            ldw_supcon_loss(z, self.labels[:4])
        with pytest.raises(ValueError, match="temperature"):
            ldw_supcon_loss(z, self.labels, temperature=0.0)
        with pytest.raises(ValueError, match="bin_width"):
            ldw_supcon_loss(z, self.labels, label_bin_width=-1.0)

    def test_module_takes_the_spread_of_the_training_set(self):
        z = unit_vectors(5, 2, 6)
        train_labels = torch.tensor([40.0, 60.0], dtype=torch.float64)  # standard deviation 10
        loss = LDWSupConLoss(train_labels=train_labels)(z, self.labels)
        torch.testing.assert_close(loss, ldw_supcon_loss(z, self.labels, label_std=10.0))
        assert not LDWSupConLoss(train_labels=train_labels).state_dict()


class TestReweightedRegressionLoss:
    predictions = torch.tensor([[50.0, 40.0], [60.0, 70.0]], dtype=torch.float64)
    labels = torch.tensor([52.0, 65.0], dtype=torch.float64)

    def test_hand_worked(self):
        weights = torch.tensor([[1.0, 0.5], [1.0, 1.5]], dtype=torch.float64)
        # Expert 0: (4 + 25) / 2; expert 1: (0.5 * 144 + 1.5 * 25) / 2.
        loss = reweighted_regression_loss(self.predictions, self.labels, weights)
        assert loss.item() == pytest.approx(14.5 + 54.75)

    def test_equal_weights_are_the_sum_of_squared_errors(self):
        loss = reweighted_regression_loss(self.predictions, self.labels, torch.ones(2, 2))
        expected = ((self.predictions - self.labels[:, None]) ** 2).mean(0).sum()
        torch.testing.assert_close(loss, expected)

    def test_each_expert_learns_as_if_alone(self):
        weights = torch.tensor([[1.0, 0.2], [1.0, 1.8]], dtype=torch.float64)
        together = self.predictions.clone().requires_grad_()
        reweighted_regression_loss(together, self.labels, weights).backward()
        for expert in range(2):
            alone = self.predictions[:, expert : expert + 1].clone().requires_grad_()
            reweighted_regression_loss(alone, self.labels, weights[:, expert : expert + 1]).backward()
            torch.testing.assert_close(together.grad[:, expert], alone.grad[:, 0])

    def test_gradient(self):
        weights = torch.tensor([[1.0, 0.5], [1.0, 1.5]], dtype=torch.float64)
        predictions = self.predictions.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda p: reweighted_regression_loss(p, self.labels, weights), predictions)

    def test_module_looks_weights_up(self):
        table = ExpertWeightTable([52.0, 52.5, 65.0], num_experts=2, min_count=1)
        loss = ReweightedRegressionLoss(table)(self.predictions, self.labels)
        torch.testing.assert_close(loss, reweighted_regression_loss(self.predictions, self.labels, table(self.labels)))

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="one shape"):
            reweighted_regression_loss(self.predictions, self.labels, torch.ones(2, 3))
        with pytest.raises(ValueError, match="Expected 2 labels"):
            reweighted_regression_loss(self.predictions, self.labels[:1], torch.ones(2, 2))
