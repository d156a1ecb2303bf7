import pytest

from echomen_hf.methods import get_method, trained_parameter_count
from echomen_hf.methods.fitting import initial_model


@pytest.fixture
def count(tiny_fields):
    """Function that counts what a method trains besides the encoder."""

    def count(name):
        model = initial_model(get_method(name), 1, tiny_fields)
        encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
        return trained_parameter_count(get_method(name), model) - encoder

    return count


# The embedding has 8 values, so a linear head has 9 parameters.
HEAD = 8 + 1
PROJECTOR = (8 * 8 + 8) + (8 * 8 + 8)
AGGREGATOR = (8 * 8 + 8) + (8 * 3 + 3)
CLASSIFIER = (8 * 8 + 8) + (8 * 10 + 10)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("echonet", HEAD),
        ("ddir", HEAD),
        ("balanced_mse", HEAD + 1),
        ("adacon", HEAD + PROJECTOR),
        ("rank_n_contrast", HEAD + HEAD),
        ("srl", HEAD + PROJECTOR),
        ("group_dir", PROJECTOR + 10 * HEAD + CLASSIFIER),
        ("echomen", HEAD + PROJECTOR + 3 * HEAD + AGGREGATOR),
        ("echomen_stage_1_head", HEAD + PROJECTOR),
        ("echomen_mean_of_experts", HEAD + PROJECTOR + 3 * HEAD),
        ("esfeh", 2 * HEAD),
    ],
)
def test_heads_that_are_trained(name, expected, count):
    assert count(name) == expected


@pytest.mark.parametrize(
    "name", ["echonet", "adacon", "rank_n_contrast", "group_dir", "echomen", "echomen_mean_of_experts"]
)
def test_trainer_trains_exactly_these(name, make_trainer_of):
    method, trained = get_method(name), set()
    for stage in (1, 2) if method.training_defaults.get("stage", "both") == "both" else (1,):
        trainer, batch = make_trainer_of(name, stage=stage)
        trainer.compute_loss(trainer.model, batch).backward()
        trained |= {key for key, p in trainer.model.named_parameters() if p.grad is not None and p.requires_grad}
    sizes = {key: parameter.numel() for key, parameter in trainer.model.named_parameters()}
    assert sum(sizes[key] for key in trained) == trained_parameter_count(method, trainer.model)
