"""Switches of a training that trade memory, time or digits for each other, one by one and together."""

import copy
import itertools

import pytest
import torch
from transformers import TrainerCallback

from echomen_hf import EchoMENTrainer
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.training import trainer as trainer_module
from echomen_hf.training.stage_1 import Stage1


SWITCHES = {
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "allocator": {"keep_large_blocks": True},
    "bf16": {"bf16": True},
    "channels_last": {"channels_last": True},
    "checkpointing": {"activation_checkpointing": True},
}
# Those that change more than the order of sums. Anything else must give what it gives without them.
CHANGES_NUMBERS = {"accumulation", "bf16"}
ONE_STEP = {
    "per_device_train_batch_size": 8,
    "max_steps": 1,
    "max_grad_norm": 0.0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}


class Gradients(TrainerCallback):
    """Keeps the gradients of the first optimiser step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def take_step(make_arguments, make_data, tiny_model, monkeypatch):
    """Function that takes one training step and returns gradients and batch statistics."""
    kept = []
    monkeypatch.setattr(trainer_module, "keep_large_blocks", kept.append)

    def step(*switches, trainer_class=EchoMENTrainer, **changes):
        settings = {**ONE_STEP, **changes}
        for switch in switches:
            settings.update(SWITCHES[switch])
        model, gradients = copy.deepcopy(tiny_model), Gradients()
        train, _ = make_data(2)
        args = make_arguments(stage=1, **settings)
        trainer_class(model=model, args=args, train_dataset=train, callbacks=[gradients]).train()
        assert kept.pop() == ("allocator" in switches)
        statistics = {n: value.clone() for n, value in model.named_buffers() if "running" in n or "num_batches" in n}
        return gradients.found, statistics

    return step


def difference(found, expected):
    """Norm of the difference of two dictionaries of tensors, in that of the second."""
    assert found.keys() == expected.keys()
    total = sum((found[name].double() - expected[name].double()).square().sum() for name in expected)
    return (total / sum(value.double().square().sum() for value in expected.values())).sqrt().item()


@pytest.mark.parametrize(
    "switches",
    [
        *itertools.combinations(SWITCHES, 1),
        *itertools.combinations(SWITCHES, 2),
        tuple(SWITCHES),
    ],
    ids="+".join,
)
def test_switches_compose(take_step, switches):
    gradients, statistics = take_step(*switches)
    expected, expected_statistics = take_step(*CHANGES_NUMBERS.intersection(switches))
    if "channels_last" in switches:
        # Sums in another order, which batch statistics in training mode magnify (in bfloat16, from another rounding).
        assert difference(gradients, expected) < (0.1 if "bf16" in switches else 0.01)
        assert difference(statistics, expected_statistics) < (1e-3 if "bf16" in switches else 1e-5)
    else:
        assert difference(gradients, expected) == 0
        assert difference(statistics, expected_statistics) == 0


def test_bf16_changes_gradients_by_no_more_than_rounding_does(take_step):
    (gradients, statistics), (expected, expected_statistics) = take_step("bf16"), take_step()
    assert 0 < difference(gradients, expected) < 0.2
    assert 0 < difference(statistics, expected_statistics) < 1e-3


def test_checkpointing_moves_batch_statistics_once(take_step):
    for switches in (("checkpointing",), ("checkpointing", "accumulation", "bf16", "channels_last")):
        _, statistics = take_step(*switches)
        counts = {int(value) for name, value in statistics.items() if "num_batches" in name}
        assert counts == {2 if "accumulation" in switches else 1}


class RegressionStage(Stage1):
    def loss(self, model, outputs, labels, num_views):
        _, terms = super().loss(model, outputs, labels, num_views)
        return terms["loss_regression"], {"loss_regression": terms["loss_regression"]}


class RegressionOfStillStatistics(EchoMENTrainer):
    """The regression loss of stage 1 alone, with batch normalisation that does not look at the batch."""

    stage_classes = {"1": RegressionStage}

    def compute_loss(self, model, inputs, **kwargs):
        model.encoder.eval()
        return super().compute_loss(model, inputs, **kwargs)


def test_accumulation_is_exact_for_the_regression_loss(take_step):
    """But for what depends on the batch: its statistics, here fixed, and the contrastive loss, here left out."""
    steps = {
        steps: take_step(
            trainer_class=RegressionOfStillStatistics,
            per_device_train_batch_size=8 // steps,
            gradient_accumulation_steps=steps,
        )[0]
        for steps in (1, 2, 4)
    }
    for accumulated in (steps[2], steps[4]):
        assert difference(accumulated, steps[1]) < 1e-6


def test_contrastive_loss_compares_within_the_batch_that_is_computed_at_once(take_step):
    gradients, _ = take_step("accumulation", contrastive_weight=0.0)
    whole, _ = take_step("accumulation", contrastive_weight=100.0, contrastive_temperature=1.0)
    at_once, _ = take_step(contrastive_weight=100.0, contrastive_temperature=1.0)
    projector = {name for name in whole if name.startswith("projector")}
    assert all(not gradients[name].any() for name in projector)
    assert difference({n: whole[n] for n in projector}, {n: at_once[n] for n in projector}) > 0.05


def test_guard_against_wrong_bf16_gradients_lasts_as_long_as_the_training(take_step, monkeypatch):
    seen = []
    original = trainer_module.guarded_against_bf16

    def guarded(model, num_frames, num_clips):
        seen.append((num_frames or model.config.num_frames, num_clips))
        return original(model, num_frames, num_clips)

    monkeypatch.setattr(trainer_module, "guarded_against_bf16", guarded)
    take_step()
    assert seen == []
    take_step("bf16", "checkpointing")
    assert seen == [(8, 16)]


def test_batches_are_bytes_on_their_way_to_the_device(take_step):
    arrived = []

    class Watching(EchoMENTrainer):
        def training_step(self, model, inputs, *args, **kwargs):
            arrived.append({name: value.dtype for name, value in inputs.items()})
            return super().training_step(model, inputs, *args, **kwargs)

    take_step(trainer_class=Watching)
    assert arrived[0]["frames"] == torch.uint8
    assert "pixel_values" not in arrived[0]


@pytest.mark.parametrize("remove_unused_columns", [False, True])
def test_data_set_of_ones_own_may_give_pixel_values(make_arguments, make_data, tiny_model, remove_unused_columns):
    """Floating point clips train as packed ones do, and unused columns are removed from neither."""
    train, _ = make_data(2)
    unpacked = [
        {"pixel_values": with_pixel_values(collate_clips([item]))["pixel_values"][0], "labels": item["labels"]}
        for item in (train[index] for index in range(len(train)))
    ]
    gradients = []
    for dataset in (train, unpacked):
        watcher = Gradients()
        EchoMENTrainer(
            model=copy.deepcopy(tiny_model),
            args=make_arguments(stage=1, remove_unused_columns=remove_unused_columns, **ONE_STEP),
            train_dataset=dataset,
            callbacks=[watcher],
        ).train()
        gradients.append(watcher.found)
    assert difference(*gradients) == 0


def test_metrics_may_ask_for_what_the_model_saw(make_arguments, make_data, tiny_model):
    _, evaluation = make_data()
    seen = {}

    def compute_metrics(prediction):
        seen["inputs"] = prediction.inputs
        return {"brightness": float(prediction.inputs.mean())}

    args = make_arguments(stage=1, include_for_metrics=["inputs"], metric_for_best_model="loss")
    trainer = EchoMENTrainer(model=tiny_model, args=args, eval_dataset=evaluation, compute_metrics=compute_metrics)
    metrics = trainer.evaluate()
    expected = with_pixel_values(collate_clips([evaluation[index] for index in range(len(evaluation))]))
    assert torch.equal(torch.as_tensor(seen["inputs"]), expected["pixel_values"])
    assert metrics["eval_brightness"] == pytest.approx(float(expected["pixel_values"].mean()), abs=1e-6)


def test_heads_and_losses_are_exact_whatever_the_switches(take_step):
    """With TF32 or bfloat16 allowed for matrix products, they would lose digits, in the backward pass as well."""
    seen = []

    class Watching(EchoMENTrainer):
        def compute_loss(self, model, *args, **kwargs):
            loss = super().compute_loss(model, *args, **kwargs)
            note = lambda *_: seen.append(torch.backends.cuda.matmul.fp32_precision)  # noqa: E731
            note()
            loss.register_hook(note)
            return loss

    expected, _ = take_step()
    torch.set_float32_matmul_precision("medium")
    try:
        found, _ = take_step(trainer_class=Watching)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["ieee", "ieee"]
    assert difference(found, expected) == 0
