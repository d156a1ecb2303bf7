from dataclasses import fields

from transformers import TrainingArguments

from echomen_hf.runs.compared_arguments import compared_arguments
from echomen_hf.training.fitting import COMPARED_ARGUMENTS


def test_listed_arguments_are_those_of_the_installed_transformers():
    assert compared_arguments() <= {field.name for field in fields(TrainingArguments)}


def test_own_arguments_count_unless_they_only_change_the_speed():
    assert {"learning_rate", "seed", "bf16", "contrastive_weight", "stage2_learning_rate"} <= COMPARED_ARGUMENTS
    assert not {"keep_large_blocks", "stage", "logging_steps", "report_to", "output_dir"} & COMPARED_ARGUMENTS
