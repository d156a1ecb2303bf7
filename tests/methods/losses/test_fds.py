import math

import pytest
import torch

from echomen_hf.methods.losses.fds import FeatureStatistics, calibrate_features, merge_statistics, smooth_over_bins
from echomen_hf.methods.losses.lds import gaussian_kernel


def random_features(count, size=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, size, generator=generator, dtype=torch.float64)
    labels = 20 + 4 * torch.rand(count, generator=generator, dtype=torch.float64)
    return features, labels


class TestMergeStatistics:
    def test_batches_add_up_to_the_whole(self):
        features, labels = random_features(40)
        bins = labels.long() - 20
        state = torch.zeros(4).double(), torch.zeros(4, 3).double(), torch.zeros(4, 3).double()
        for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
            state = merge_statistics(*state, features[part], bins[part])
        count, mean, squares = state
        for b in range(4):
            mine = features[bins == b]
            assert count[b] == len(mine)
            torch.testing.assert_close(mean[b], mine.mean(0))
            torch.testing.assert_close(squares[b] / (count[b] - 1), mine.var(0))

    def test_large_means_do_not_swallow_the_variance(self):
        features = torch.tensor([[1e4], [1e4 + 0.1], [1e4 - 0.1]], dtype=torch.float32)
        state = torch.zeros(1), torch.zeros(1, 1), torch.zeros(1, 1)
        for row in features:
            state = merge_statistics(*state, row[None], torch.zeros(1, dtype=torch.long))
        assert state[2].item() == pytest.approx(0.02, rel=0.05)


class TestSmoothOverBins:
    kernel = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)

    def test_worked_by_hand_with_reflection(self):
        values = torch.tensor([[1.0], [2.0], [5.0]], dtype=torch.float64)
        smoothed = smooth_over_bins(values, torch.ones(3, dtype=torch.bool), self.kernel)
        # Reflected without the edge itself: 2 | 1 2 5 | 2.
        torch.testing.assert_close(smoothed, torch.tensor([[1.5], [2.5], [3.5]], dtype=torch.float64))

    def test_bins_without_samples_take_no_part(self):
        values = torch.tensor([[1.0], [7.0], [5.0], [9.0], [9.0]], dtype=torch.float64)
        seen = torch.tensor([True, False, True, False, False])
        smoothed = smooth_over_bins(values, seen, self.kernel)
        torch.testing.assert_close(smoothed[:, 0], torch.tensor([1.0, 3.0, 5.0, 5.0, 0.0], dtype=torch.float64))

    def test_constant_statistics_stay(self):
        values = torch.full((100, 2), 3.5, dtype=torch.float64)
        kernel = torch.from_numpy(gaussian_kernel(5, 2.0))
        torch.testing.assert_close(smooth_over_bins(values, torch.ones(100, dtype=torch.bool), kernel), values)


class TestCalibrateFeatures:
    def calibrate(self, feature, mean, variance, smoothed_mean, smoothed_variance):
        values = (feature, mean, variance, smoothed_mean, smoothed_variance)
        return calibrate_features(*[torch.tensor([[value]], dtype=torch.float64) for value in values]).item()

    def test_worked_by_hand(self):
        # (3 - 1) * sqrt(9 / 4) + 10
        assert self.calibrate(3.0, 1.0, 4.0, 10.0, 9.0) == pytest.approx(13.0)

    @pytest.mark.parametrize(("smoothed_variance", "ratio"), [(1e6, 10.0), (1e-6, 0.1)])
    def test_ratio_of_variances_is_clamped(self, smoothed_variance, ratio):
        assert self.calibrate(3.0, 1.0, 1.0, 0.0, smoothed_variance) == pytest.approx(2 * math.sqrt(ratio))

    def test_feature_without_spread_stays(self):
        assert self.calibrate(3.0, 3.0, 0.0, 10.0, 9.0) == 3.0

    def test_gradient(self):
        features, _ = random_features(4)
        others = [torch.rand(4, 3, dtype=torch.float64) + 0.5 for _ in range(4)]
        assert torch.autograd.gradcheck(lambda f: calibrate_features(f, *others), features.requires_grad_())


class TestFeatureStatistics:
    def make(self):
        return FeatureStatistics(3).double()

    def test_two_epochs_worked_by_hand(self):
        statistics = FeatureStatistics(1).double()
        for values in ((1.0, 3.0), (5.0, 9.0)):
            statistics.observe(torch.tensor(values).double()[:, None], torch.tensor([20.2, 20.8]))
            statistics.end_epoch(momentum=0.9, kernel_size=1)
        # Means 2 then 7, variances 2 then 8: nine parts of the first, one of the second.
        assert statistics.mean[20].item() == pytest.approx(0.9 * 2 + 0.1 * 7)
        assert statistics.variance[20].item() == pytest.approx(0.9 * 2 + 0.1 * 8)
        assert statistics.num_epochs == 2
        assert statistics.epoch_count.sum() == 0

    def test_running_epoch_changes_nothing_that_smoothing_reads(self):
        statistics = self.make()
        features, labels = random_features(30)
        statistics.observe(features, labels)
        statistics.end_epoch()
        before = statistics.smooth(features, labels)
        statistics.observe(features * 7, labels)
        assert torch.equal(statistics.smooth(features, labels), before)
        statistics.end_epoch()
        assert not torch.equal(statistics.smooth(features, labels), before)

    def test_first_epoch_is_not_smoothed(self):
        statistics = self.make()
        features, labels = random_features(30)
        assert torch.equal(statistics.smooth(features, labels), features)
        statistics.observe(features, labels)
        assert torch.equal(statistics.smooth(features, labels), features)
        statistics.end_epoch()
        assert not torch.equal(statistics.smooth(features, labels, start_smooth=1), features)
        assert torch.equal(statistics.smooth(features, labels, start_smooth=2), features)

    def test_smoothing_by_the_definition(self):
        statistics = self.make()
        features, labels = random_features(200)
        statistics.observe(features, labels)
        statistics.end_epoch()
        found = statistics.smooth(features, labels)
        kernel = gaussian_kernel(5, 2.0)
        bins = labels.long()
        own = {b: (features[bins == b].mean(0), features[bins == b].var(0)) for b in range(20, 24)}
        for i in range(5):
            b = int(bins[i])
            shares = {c: kernel[c - b + 2] for c in own if abs(c - b) <= 2}
            mean, variance = (
                sum(share * own[c][part] for c, share in shares.items()) / sum(shares.values()) for part in (0, 1)
            )
            expected = (features[i] - own[b][0]) * (variance / own[b][1]).clamp(0.1, 10).sqrt() + mean
            torch.testing.assert_close(found[i], expected)

    def test_bin_that_never_had_a_sample_is_left_alone(self):
        statistics = self.make()
        features, labels = random_features(30)
        statistics.observe(features, labels)
        statistics.end_epoch()
        far = torch.full_like(labels, 80.0)
        assert torch.equal(statistics.smooth(features, far), features)

    def test_bin_that_appears_late_takes_its_first_statistics_whole(self):
        statistics = FeatureStatistics(1).double()
        statistics.observe(torch.tensor([[4.0]]), torch.tensor([20.0]))
        statistics.end_epoch(kernel_size=1)
        statistics.observe(torch.tensor([[6.0]]), torch.tensor([30.0]))
        statistics.end_epoch(kernel_size=1)
        assert statistics.mean[20].item() == 4.0
        assert statistics.mean[30].item() == 6.0

    def test_epochs_before_start_update_do_not_count(self):
        statistics = FeatureStatistics(1).double()
        for value in (100.0, 4.0):
            statistics.observe(torch.tensor([[value]]), torch.tensor([20.0]))
            statistics.end_epoch(kernel_size=1, start_update=1)
        assert statistics.mean[20].item() == 4.0

    def test_statistics_do_not_depend_on_batches(self):
        features, labels = random_features(50)
        whole, parts = self.make(), self.make()
        whole.observe(features, labels)
        for index in torch.randperm(50).split(7):
            parts.observe(features[index], labels[index])
        for statistics in (whole, parts):
            statistics.end_epoch()
        torch.testing.assert_close(whole.smoothed_variance, parts.smoothed_variance)

    def test_everything_is_in_the_state(self):
        statistics = self.make()
        features, labels = random_features(30)
        statistics.observe(features, labels)
        statistics.end_epoch()
        statistics.observe(features * 2, labels)
        copy = self.make()
        copy.load_state_dict(statistics.state_dict())
        for each in (statistics, copy):
            each.end_epoch()
        assert torch.equal(statistics.smooth(features, labels), copy.smooth(features, labels))
        assert {name for name, _ in statistics.named_parameters()} == set()

    def test_single_precision_inside_autocast(self):
        statistics = FeatureStatistics(3)
        features, labels = random_features(30)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            statistics.observe(features.float(), labels.float())
        torch.testing.assert_close(
            statistics.epoch_mean[20].double(), features[labels < 21].mean(0), atol=1e-6, rtol=1e-5
        )
