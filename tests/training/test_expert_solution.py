import copy

import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENTrainer
from echomen_hf.labels import ExpertWeightTable
from echomen_hf.losses import reweighted_regression_loss
from echomen_hf.training import fit
from echomen_hf.training.embeddings import TrainingEmbeddings
from echomen_hf.training.expert_solution import set_experts_to_their_optimum, solve_experts


@pytest.fixture
def samples():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, 6, generator=generator, dtype=torch.float64) + 3
    truth = torch.tensor([4.0, -2.0, 1.0, 0.0, 3.0, -1.0], dtype=torch.float64)
    noise = 5 * torch.randn(200, generator=generator, dtype=torch.float64)
    return embeddings, (embeddings @ truth + 40 + noise).clamp(0, 100)


def test_hand_worked_line():
    # Through (0, 10) and (1, 30) twice; the weights make no difference where the fit is exact.
    embeddings = torch.tensor([[0.0], [1.0], [1.0]])
    weights, biases = solve_experts(embeddings, torch.tensor([10.0, 30.0, 30.0]), torch.tensor([[1.0], [1.0], [7.0]]))
    torch.testing.assert_close(weights, torch.tensor([[20.0]], dtype=torch.float64))
    torch.testing.assert_close(biases, torch.tensor([10.0], dtype=torch.float64))


def test_hand_worked_weighted_mean():
    # One embedding for all: only the bias is left, the weighted mean (3 * 20 + 1 * 60) / 4, and no slope is invented.
    weights, biases = solve_experts(torch.ones(2, 3), torch.tensor([20.0, 60.0]), torch.tensor([[3.0], [1.0]]))
    torch.testing.assert_close(biases, torch.tensor([30.0], dtype=torch.float64))
    assert weights.abs().max() == 0


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_gradient_of_the_loss_that_is_trained_on_vanishes(samples, weight_decay):
    embeddings, labels = samples
    table = ExpertWeightTable(labels.numpy(), 3)
    weights, biases = solve_experts(embeddings, labels, table(labels), weight_decay)
    weights.requires_grad_(), biases.requires_grad_()
    predictions = embeddings @ weights.T + biases
    loss = reweighted_regression_loss(predictions, labels, table(labels)) + weight_decay / 2 * weights.square().sum()
    loss.backward()
    assert weights.grad.abs().max() < 1e-9
    assert biases.grad.abs().max() < 1e-9


def test_rare_labels_pull_the_last_expert_most(samples):
    embeddings, labels = samples
    # Weak hearts whose embedding explains only half of their weakness.
    embeddings, labels = torch.cat([embeddings, embeddings[:10]]), torch.cat([labels, labels[:10] - 30])
    table = ExpertWeightTable(labels.numpy(), 3, bin_width=5.0, min_count=1)
    weights, biases = solve_experts(embeddings, labels, table(labels))
    errors = (embeddings @ weights.T + biases - labels[:, None])[-10:].mean(dim=0)
    assert errors[0] > errors[1] > errors[2] > 0


def test_experts_of_a_model(tiny_model):
    torch.manual_seed(1)
    embeddings = torch.randn(2, 40, tiny_model.config.hidden_sizes[-1])
    slope = torch.linspace(-3, 3, embeddings.shape[-1])
    labels = (embeddings.mean(dim=0) @ slope + 55).tolist()
    dataset = TrainingEmbeddings(embeddings, labels)
    table = ExpertWeightTable(labels, 3)
    set_experts_to_their_optimum(tiny_model, dataset, table, weight_decay=0.0)

    def loss():
        predictions = tiny_model(embedding=embeddings.flatten(0, 1)).expert_predictions
        targets = torch.tensor(labels).repeat(2)
        return reweighted_regression_loss(predictions, targets, table(targets))

    best = loss()
    best.backward()
    for expert in tiny_model.experts:
        assert expert.weight.grad.abs().max() < 1e-3
        with torch.no_grad():
            expert.bias.add_(0.5)
    assert loss() > best + 0.5


def test_experts_behind_an_adapter_are_those_of_what_it_makes(tiny_config):
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 40, 8, generator=generator)
    labels = (55 + 10 * torch.randn(40, generator=generator)).clamp(0, 100).tolist()
    tiny_config.adapter_size = 4
    model = EchoMENModel(tiny_config)
    torch.nn.init.normal_(model.adapter.fc2.weight, generator=generator)
    adapted = copy.deepcopy(model)
    adapted.adapter = None
    table = ExpertWeightTable(labels, 3)
    set_experts_to_their_optimum(model, TrainingEmbeddings(embeddings, labels), table, 0.0)
    with torch.no_grad():
        made = TrainingEmbeddings(model.head_input(embeddings), labels)
    set_experts_to_their_optimum(adapted, made, table, 0.0)
    for expert, expected in zip(model.experts, adapted.experts):
        torch.testing.assert_close(expert.weight, expected.weight)


class TestStage2:
    @pytest.fixture
    def run(self, videos, tiny_config, tiny_processor, make_arguments, tmp_path):
        def run(name, **changes):
            torch.manual_seed(0)
            args = make_arguments(
                output_dir=str(tmp_path / name), stage="both", num_train_epochs=1, **{"embedding_draws": 2, **changes}
            )
            model = EchoMENModel(tiny_config)
            return fit(model, tiny_processor, videos["train"], videos["validation"], args, crop_padding=3)

        return run

    def test_trains_the_aggregator_alone(self, run):
        one = run("one", expert_solver="least_squares", stage2_num_train_epochs=1)
        other = run("other", expert_solver="least_squares", stage2_num_train_epochs=2, stage2_learning_rate=1e-2)
        for first, second in zip(one.experts, other.experts):
            assert torch.equal(first.weight, second.weight)
        moved = [
            not torch.equal(first, second)
            for first, second in zip(one.aggregator.parameters(), other.aggregator.parameters())
        ]
        assert all(moved)

    def test_needs_embeddings_and_something_to_train(self, run, tiny_config, tiny_model, make_arguments):
        with pytest.raises(ValueError, match="set `embedding_draws`"):
            run("videos", expert_solver="least_squares", embedding_draws=0)
        tiny_config.expert_aggregation = "mean"
        with pytest.raises(ValueError, match="nothing to train"):
            run("mean", expert_solver="least_squares")
        args = make_arguments(
            stage="2", expert_solver="least_squares", eval_strategy="no", load_best_model_at_end=False
        )
        with pytest.raises(ValueError, match="TrainingEmbeddings"):
            EchoMENTrainer(tiny_model, args, train_dataset=[{"labels": 50.0}]).train()
