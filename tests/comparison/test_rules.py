from dataclasses import replace

import pytest

from echomen_hf.comparison import select_methods
from echomen_hf.comparison.rules import count_encoder_steps, require_equal_steps
from echomen_hf.comparison.variants import Variant, make_sweep
from echomen_hf.methods import get_method


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 12),  # 44 videos in batches of 8: 6 steps an epoch
        ({"gradient_accumulation_steps": 4}, 4),
        ({"dataloader_drop_last": True}, 10),
        ({"num_train_epochs": 0.5}, 3),
        ({"max_steps": 5}, 5),
        ({"stage": "2"}, 0),
    ],
)
def test_steps_of_the_encoder(make_arguments, changes, steps):
    args = make_arguments(**{"num_train_epochs": 2, "per_device_train_batch_size": 8, **changes})
    assert count_encoder_steps(args, 44) == steps


def test_every_method_takes_the_same_steps(make_settings):
    settings = make_settings()
    variants = [*select_methods(["all"]), *make_sweep("experts", settings.training, dict(settings.model_config))]
    steps = require_equal_steps(settings, variants, 25)  # 3 batches of 12 at most, twice
    assert steps.keys() == {variant.name for variant in variants}
    assert set(steps.values()) == {6}


def test_method_with_other_steps_is_refused(make_settings):
    longer = replace(
        get_method("echonet"), name="longer", training_defaults={"stage": "1", "num_views": 1, "num_train_epochs": 5}
    )
    with pytest.raises(ValueError, match="the recipe's 6 steps, but longer 15"):
        require_equal_steps(make_settings(), [*select_methods(["echomen"]), Variant(longer)], 25)


def test_training_that_may_end_early_is_refused(make_settings):
    with pytest.raises(ValueError, match="Leave `early_stopping_patience` out"):
        require_equal_steps(make_settings(early_stopping_patience=2), select_methods(["echomen"]), 25)
    published = make_settings(early_stopping_patience=2, schedule="published")
    require_equal_steps(published, select_methods(["echomen"]), 25)


def test_published_schedules(make_settings):
    settings = make_settings(schedule="published")
    steps = require_equal_steps(settings, select_methods(["echomen", "echonet"]), 100)
    assert steps == {"echomen": 40 * 5, "echonet": 45 * 5}  # batches of 20
