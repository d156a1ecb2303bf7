import itertools
import math

import pytest
import torch

from echomen_hf.methods.losses.ranksim import RankSimLoss, blackbox_rank_gradient, one_per_label, ranks, ranksim_loss


def random_features(count, size=5, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def python_ranks(row):
    return [(1 + sum(other > value for other in row)) / len(row) for value in row]


class TestRanks:
    def test_worked_by_hand(self):
        values = torch.tensor([[0.3, 0.9, -1.0], [2.0, 2.0, 1.0]], dtype=torch.float64)
        expected = torch.tensor([[2 / 3, 1 / 3, 1.0], [1 / 3, 1 / 3, 1.0]], dtype=torch.float64)
        torch.testing.assert_close(ranks(values), expected)

    def test_order_of_values_does_not_matter(self):
        values = random_features(1, 9)[0]
        order = torch.randperm(9)
        assert torch.equal(ranks(values)[order], ranks(values[order]))


class TestBlackboxGradient:
    def test_is_the_finite_perturbation_of_the_ranking(self):
        values, gradient = random_features(2, 6)
        for size in (0.1, 2.0, 50.0):
            moved = [v + size * g for v, g in zip(values.tolist(), gradient.tolist())]
            expected = [-(a - b) / size for a, b in zip(python_ranks(values.tolist()), python_ranks(moved))]
            found = blackbox_rank_gradient(values, gradient, size)
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    def test_is_the_slope_of_the_interpolated_loss(self):
        """Of the continuous function that theorem 1 of Vlastelica et al. puts in the place of the loss of the ranks.

        A ranking is the permutation that has the smallest product with the values, so that function can be worked out
        by trying all permutations, and differentiated numerically.
        """
        values, slope = random_features(2, 4, seed=3)
        size = 1.3
        permutations = torch.tensor(list(itertools.permutations([0.25, 0.5, 0.75, 1.0])), dtype=torch.float64)

        def interpolated(a):
            best = (permutations @ a).min()
            perturbed = permutations[(permutations @ (a + size * slope)).argmin()]
            return perturbed @ slope - (best - perturbed @ a) / size

        step = 1e-6
        numeric = [
            (interpolated(values + step * unit) - interpolated(values - step * unit)) / (2 * step)
            for unit in torch.eye(4, dtype=torch.float64)
        ]
        found = blackbox_rank_gradient(values, slope, size)
        assert found.abs().max() > 0
        torch.testing.assert_close(found, torch.stack(numeric), atol=1e-7, rtol=1e-7)


class TestOnePerLabel:
    def test_largest_key_of_each_label(self):
        labels = torch.tensor([50.1, 60.0, 50.9, 60.4, 71.0])
        keys = torch.tensor([0.2, 0.9, 0.8, 0.3, 0.1])
        assert one_per_label(labels, keys).tolist() == [1, 2, 4]
        assert one_per_label(labels, keys, bin_width=25.0).tolist() == [1]

    def test_every_sample_of_a_label_is_as_likely(self):
        torch.manual_seed(0)
        labels = torch.tensor([50.0, 50.1, 50.2, 80.0])
        chosen = torch.cat([one_per_label(labels, torch.rand(4))[:1] for _ in range(900)])
        assert torch.bincount(chosen, minlength=3).tolist() == pytest.approx([300, 300, 300], abs=60)


class TestLoss:
    labels = torch.tensor([20.0, 31.0, 45.0, 58.0, 64.0], dtype=torch.float64)

    def test_agrees_with_the_definition(self):
        features = random_features(5)
        total = 0.0
        for i in range(5):
            cosine = [torch.cosine_similarity(features[i], features[j], dim=0).item() for j in range(5)]
            nearness = [-abs(self.labels[i] - self.labels[j]).item() for j in range(5)]
            pairs = zip(python_ranks(cosine), python_ranks(nearness))
            total += sum((a - b) ** 2 for a, b in pairs) / 5
        assert ranksim_loss(features, self.labels, weight=1.0).item() == pytest.approx(total, rel=1e-12)
        assert ranksim_loss(features, self.labels).item() == pytest.approx(100 * total, rel=1e-12)

    def test_features_ordered_as_the_labels_cost_nothing(self):
        # Points on a circle at angles that rise with the label: the nearer the label, the larger the cosine.
        angles = self.labels / 100 * math.pi
        features = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
        loss = ranksim_loss(features, self.labels, interpolation=1e-3)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(features.grad, torch.zeros_like(features))

    def test_gradient_is_that_of_the_similarities(self):
        features = random_features(5).requires_grad_()
        ranksim_loss(features, self.labels, weight=3.0, interpolation=0.7).backward()
        leaf = features.detach().clone().requires_grad_()
        unit = torch.nn.functional.normalize(leaf, dim=1)
        similarity = unit @ unit.T
        target = ranks(-(self.labels[:, None] - self.labels[None]).abs())
        of_ranks = 3.0 * 2 * (ranks(similarity.detach()) - target) / 5
        similarity.backward(blackbox_rank_gradient(similarity.detach(), of_ranks, 0.7))
        torch.testing.assert_close(features.grad, leaf.grad)
        assert leaf.grad.abs().max() > 1e-3

    def test_following_the_gradient_orders_the_features(self):
        features = random_features(5, seed=4).requires_grad_()
        before = ranksim_loss(features, self.labels).item()
        optimizer = torch.optim.SGD([features], lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            ranksim_loss(features, self.labels).backward()
            optimizer.step()
        assert ranksim_loss(features, self.labels).item() < 0.2 * before

    def test_gradient_scales_with_the_loss(self):
        gradients = []
        for factor in (1.0, 65536.0):
            features = random_features(5).requires_grad_()
            (factor * ranksim_loss(features, self.labels)).backward()
            gradients.append(features.grad / factor)
        torch.testing.assert_close(*gradients)

    @pytest.mark.parametrize("features", [torch.zeros(4, 3), torch.ones(4, 3), torch.randn(1, 3), torch.randn(4, 3)])
    def test_finite_for_every_batch(self, features):
        features = features.clone().requires_grad_()
        loss = ranksim_loss(features, torch.arange(10.0, 10.0 + len(features)))
        loss.backward()
        assert loss.isfinite()
        assert features.grad.isfinite().all()

    def test_full_precision_inside_autocast(self):
        features = random_features(5).float()
        expected = ranksim_loss(features, self.labels.float())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(ranksim_loss(features, self.labels.float()), expected)

    def test_no_perturbation_is_refused(self):
        with pytest.raises(ValueError, match="interpolation"):
            ranksim_loss(random_features(5), self.labels, interpolation=0.0)

    def test_module_ranks_one_sample_per_label(self, outputs_of):
        labels = torch.tensor([20.0, 31.0, 45.0, 58.0, 58.5], dtype=torch.float64)
        embedding = random_features(5)
        outputs = outputs_of(regression=labels + 2, embedding=embedding)
        torch.manual_seed(0)
        loss, parts = RankSimLoss(labels.numpy(), weight=7.0)(None, outputs, labels, 1)
        torch.manual_seed(0)
        chosen = one_per_label(labels, torch.rand(5))
        assert len(chosen) == 4
        ranking = ranksim_loss(embedding[chosen], labels[chosen], weight=7.0)
        assert loss.item() == pytest.approx(4.0 + ranking.item())
        assert parts["loss_ranking"].item() == ranking.item()
