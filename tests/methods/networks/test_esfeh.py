import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from echomen_hf.methods import get_method
from echomen_hf.methods.fitting import initial_model
from echomen_hf.methods.networks.esfeh import BayesianR2Plus1DOutput, BayesianRegressionHead, EsfehLoss, gaussian_kl
from helpers.small_networks import small_config, small_model


def head_of(mean, std, bias, bias_std, **changes):
    head = BayesianRegressionHead(small_config("esfeh", hidden_sizes=(4, len(mean)), **changes)).double()
    rho = torch.tensor(std, dtype=torch.float64).expm1().log()
    with torch.no_grad():
        head.weight_mean.copy_(torch.tensor(mean))
        head.weight_rho.copy_(rho)
        head.bias_mean.fill_(bias)
        head.bias_rho.fill_(math.log(math.expm1(bias_std)))
    return head


class TestDivergence:
    def test_of_equal_distributions_is_zero(self):
        head = head_of([0.0, 0.0], [0.7, 0.7], 55.6, 0.7, prior_std=0.7)
        assert head.kl_divergence().item() == pytest.approx(0, abs=1e-12)

    def test_worked_by_hand(self):
        """KL of N(1, 0.5^2) from N(0, 2^2) is ln 4 + (0.25 + 1) / 8 - 1/2."""
        expected = math.log(4) + 1.25 / 8 - 0.5
        mean, std = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
        assert gaussian_kl(mean, std, 0.0, 2.0).item() == pytest.approx(expected)
        prior, posterior = torch.distributions.Normal(0.0, 2.0), torch.distributions.Normal(1.0, 0.5)
        assert torch.distributions.kl_divergence(posterior, prior).item() == pytest.approx(expected, rel=1e-6)
        # Two such weights, and a bias at its prior but for its spread.
        head = head_of([1.0, 1.0], [0.5, 0.5], 55.6, 0.5, prior_std=2.0)
        of_bias = math.log(4) + 0.25 / 8 - 0.5
        assert head.kl_divergence().item() == pytest.approx(2 * expected + of_bias)


class TestHead:
    mean, std, bias, bias_std = [1.0, -2.0, 0.5], [0.1, 0.3, 0.2], 50.0, 0.4
    embedding = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [-4.0, 1.0, 0.0]], dtype=torch.float64)

    @property
    def expected(self):
        mean = self.embedding @ torch.tensor(self.mean, dtype=torch.float64) + self.bias
        variance = self.embedding.square() @ torch.tensor(self.std, dtype=torch.float64).square() + self.bias_std**2
        return mean, variance.sqrt()

    def test_samples_of_weights_have_the_distribution_of_a_linear_function(self):
        head = head_of(self.mean, self.std, self.bias, self.bias_std)
        with torch.no_grad():
            samples = head.sample(self.embedding, 40_000, seed=3)
        mean, std = self.expected
        torch.testing.assert_close(samples.mean(1), mean, rtol=0, atol=0.02)
        torch.testing.assert_close(samples.std(1), std, rtol=0.02, atol=0)

    def test_noise_of_training_has_the_same_distribution(self):
        head = head_of(self.mean, self.std, self.bias, self.bias_std)
        torch.manual_seed(0)
        with torch.no_grad():
            draws = head(self.embedding.repeat(40_000, 1)).view(-1, 3)
        mean, std = self.expected
        torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.02)
        torch.testing.assert_close(draws.std(0), std, rtol=0.02, atol=0)

    def test_gradient(self):
        head = head_of(self.mean, self.std, self.bias, self.bias_std)

        def noisy(mean, rho):
            torch.manual_seed(5)
            state = {"weight_mean": mean, "weight_rho": rho}
            return torch.func.functional_call(head, state, (self.embedding,))

        inputs = tuple(p.detach().clone().requires_grad_() for p in (head.weight_mean, head.weight_rho))
        assert torch.autograd.gradcheck(noisy, inputs)


class TestModel:
    def test_uncertainty_is_the_spread_of_the_samples(self):
        model = small_model("esfeh", num_samples=7, initial_posterior_std=2.0)
        with torch.no_grad():
            output = model(torch.randn(2, 8, 1, 32, 32))
        assert output.sampled_predictions.shape == (2, 7)
        torch.testing.assert_close(output.ejection_fraction, output.sampled_predictions.mean(1))
        expected = output.sampled_predictions.double().numpy().std(axis=1)
        np.testing.assert_allclose(output.uncertainty.numpy(), expected, rtol=1e-4)
        assert output.uncertainty.min() > 0.1

    def test_more_samples_and_other_seeds_agree(self):
        clips = torch.randn(2, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        estimates = []
        for seed in (0, 1):
            model = small_model("esfeh", num_samples=20_000, sampling_seed=seed, initial_posterior_std=0.5)
            with torch.no_grad():
                estimates.append(model(clips).ejection_fraction)
        assert not torch.equal(*estimates)
        torch.testing.assert_close(*estimates, rtol=0, atol=0.05)

    def test_no_spread_means_no_uncertainty(self):
        model = small_model("esfeh", initial_posterior_std=1e-6)
        with torch.no_grad():
            assert model(torch.randn(2, 8, 1, 32, 32)).uncertainty.max() < 1e-4

    def test_evaluation_does_not_move_the_random_numbers_of_training(self):
        model = small_model("esfeh")
        torch.manual_seed(1)
        expected = torch.rand(1)
        torch.manual_seed(1)
        with torch.no_grad():
            model(torch.zeros(1, 8, 1, 32, 32))
        assert torch.equal(torch.rand(1), expected)

    def test_training_is_noisy(self):
        model = small_model("esfeh", initial_posterior_std=1.0).train()
        clips = torch.randn(2, 8, 1, 32, 32)
        assert not torch.equal(model(clips).ejection_fraction, model(clips).ejection_fraction)

    def test_begins_with_the_encoder_of_all_methods(self, tiny_fields, tiny_model):
        own = initial_model(get_method("esfeh"), 3, tiny_fields)
        other = initial_model(get_method("echonet"), 3, tiny_fields)
        for name, value in own.encoder.state_dict().items():
            assert torch.equal(value, other.encoder.state_dict()[name]), name
        given = initial_model(get_method("esfeh"), 3, tiny_fields, tiny_model)
        assert torch.equal(given.encoder.stem[0].weight, tiny_model.encoder.stem[0].weight)

    def test_takes_a_recipe_of_echomen(self, tiny_fields):
        config = get_method("esfeh").make_config({**tiny_fields, "num_samples": 5})
        assert (config.hidden_sizes, config.image_size, config.num_samples) == ([4, 8], 32, 5)
        assert not hasattr(config, "projection_size")
        with pytest.raises(TypeError, match="unknown arguments .'widths'"):
            get_method("esfeh").make_config({**tiny_fields, "widths": 3})

    @pytest.mark.parametrize("field", ["prior_std", "initial_posterior_std", "num_samples"])
    def test_sizes_must_be_positive(self, field):
        with pytest.raises(StrictDataclassClassValidationError, match=f"`{field}` must be positive"):
            small_config("esfeh", **{field: 0})

    def test_lengths_must_agree(self):
        with pytest.raises(StrictDataclassClassValidationError, match="need the same length"):
            small_config("esfeh", depths=(1, 1, 1))


class TestLoss:
    outputs = BayesianR2Plus1DOutput(regression=torch.tensor([51.0, 47.0]), kl_divergence=torch.tensor(8.0))
    labels = torch.tensor([50.0, 50.0])

    def test_worked_by_hand(self):
        """Squared errors 1 and 9, and a divergence of 8 nats shared by four videos."""
        value, terms = EsfehLoss(np.full(4, 50.0))(None, self.outputs, self.labels, 1)
        assert value.item() == pytest.approx(5 + 2)
        assert {name: term.item() for name, term in terms.items()} == {"loss_regression": 5, "loss_divergence": 2}

    def test_weight_of_the_divergence(self):
        value, _ = EsfehLoss(np.full(4, 50.0), kl_weight=0.5)(None, self.outputs, self.labels, 1)
        assert value.item() == pytest.approx(5 + 1)
        with pytest.raises(ValueError, match="`kl_weight` must not be negative"):
            EsfehLoss(np.full(4, 50.0), kl_weight=-1.0)


def test_says_what_is_not_published():
    assert "Neither code nor the details" in get_method("esfeh").source
