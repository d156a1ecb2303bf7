import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments
from echomen_hf.training.recipes import RECIPES_FOLDER, parse_recipe
from helpers.recipe_runs import train_two_steps


SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
TYPES = (DataArguments, ModelArguments, EchoMENTrainingArguments)


def write(path, text):
    path.write_text(text)
    return str(path)


def test_flags_alone():
    data, model, training = parse_recipe(TYPES, ["--data_dir", "data", "--learning_rate", "0.1", "--use_cpu"])
    assert (data.data_dir, training.learning_rate, model.model_config) == ("data", 0.1, None)


def test_output_has_the_name_that_it_has_in_all_scripts():
    for flag in ("--output", "--output_dir", "--output-dir"):
        assert parse_recipe(TYPES, ["--data_dir", "data", flag, "runs/x", "--use_cpu"])[2].output_dir == "runs/x"


def test_recipe_and_flags_that_override_it(tmp_path):
    recipe = write(
        tmp_path / "recipe.yaml",
        "data_dir: from_recipe\nlearning_rate: 3e-3\noptim: adamw_torch\nuse_cpu: true\n"
        "model_config: {depths: [1, 1]}\n",
    )
    data, model, training = parse_recipe(TYPES, [recipe, "--data_dir", "from_flag"], defaults={"stage": "both"})
    assert data.data_dir == "from_flag"
    assert training.learning_rate == 3e-3
    assert training.optim == "adamw_torch"
    assert training.stage == "both"
    assert model.model_config == {"depths": [1, 1]}


def test_json_recipe(tmp_path):
    recipe = write(tmp_path / "recipe.json", json.dumps({"data_dir": "data", "seed": 7, "use_cpu": True}))
    assert parse_recipe(TYPES, [recipe])[2].seed == 7


@pytest.mark.parametrize("flags", [["--model", "trained"], ["--model=trained"]])
def test_model_on_the_command_line_replaces_the_recipes_new_model(tmp_path, flags):
    recipe = write(tmp_path / "r.yaml", "use_cpu: true\nmodel_config: {depths: [1]}\nbackbone_checkpoint: k.pth\n")
    _, model, _ = parse_recipe(TYPES, [recipe, *flags])
    assert (model.model, model.model_config, model.backbone_checkpoint) == ("trained", None, None)


def test_batch_on_the_command_line_replaces_the_recipes(tmp_path):
    for ours, other in (("total", "per_device"), ("per_device", "total")):
        recipe = write(tmp_path / "r.yaml", f"use_cpu: true\n{other}_train_batch_size: 20\n")
        *_, training = parse_recipe(TYPES, [recipe, f"--{ours}_train_batch_size", "6"])
        assert training.per_device_train_batch_size == 6


def test_new_model_on_the_command_line_replaces_the_recipes_model(tmp_path):
    recipe = write(tmp_path / "r.yaml", "use_cpu: true\nmodel: trained\n")
    _, model, _ = parse_recipe(TYPES, [recipe, "--backbone_checkpoint", "k.pth"])
    assert (model.model, model.model_config, model.backbone_checkpoint) == (None, None, "k.pth")


@pytest.mark.parametrize(
    ("content", "flags"),
    [("model_config: {depths: [1]}\nmodel: trained", []), ("", ["--model", "a", "--backbone_checkpoint", "k.pth"])],
)
def test_contradiction_in_one_place_is_refused(tmp_path, content, flags):
    recipe = write(tmp_path / "r.yaml", f"use_cpu: true\n{content}\n")
    with pytest.raises(ValueError, match="leave out `model_config`, `backbone_checkpoint` and `encoder`"):
        parse_recipe(TYPES, [recipe, *flags])


@pytest.mark.parametrize("name", ["demo", "paper", "paper_24gb", "paper_ddp", "pediatric", "release"])
def test_shipped_recipes_parse(name):
    _, model, training = parse_recipe(TYPES, [name, "--data_dir", "data", "--use_cpu"])
    assert model.model_config["num_channels"] in (1, 3)
    assert training.report_to == ["tensorboard"]


def test_field_that_nothing_reads(tmp_path):
    recipe = write(tmp_path / "recipe.yaml", "learning_rte: 1\n")
    with pytest.raises(ValueError, match="recipe.yaml has fields that nothing reads: learning_rte"):
        parse_recipe(TYPES, [recipe])


def test_missing_and_broken_recipes(tmp_path):
    with pytest.raises(FileNotFoundError, match="No recipe at"):
        parse_recipe(TYPES, [str(tmp_path / "none.yaml")])
    with pytest.raises(ValueError, match="not valid YAML"):
        parse_recipe(TYPES, [write(tmp_path / "broken.yaml", "a: [1")])
    with pytest.raises(ValueError, match="must map names"):
        parse_recipe(TYPES, [write(tmp_path / "list.yaml", "- 1")])


@dataclass
class Place:
    folder: str = field(metadata={"help": "Has no default."})


def test_missing_required_setting(capsys):
    with pytest.raises(SystemExit):
        parse_recipe((Place, *TYPES), ["--use_cpu"])
    assert "--folder" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((SCRIPTS / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_understands_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.num_processes >= config.num_machines >= 1
    if path.stem == "multi_node":
        assert (config.num_machines, config.num_processes, config.main_process_port) == (2, 8, 29500)


def test_recipe_that_does_not_exist_names_those_of_the_package():
    with pytest.raises(FileNotFoundError, match=r"No recipe at scripts/recipes/demo.yaml; .*one of compare, demo"):
        parse_recipe(TYPES, ["scripts/recipes/demo.yaml", "--data_dir", "data", "--use_cpu"])


@pytest.mark.parametrize(
    ("name", "differences"),
    [
        ("paper_24gb", {"bf16", "activation_checkpointing", "gradient_accumulation_steps"}),
        ("paper_ddp", {"total_train_batch_size", "sync_batch_norm", "dataloader_num_workers"}),
    ],
)
def test_recipes_for_other_cards_are_the_papers_but_for_what_they_are_for(name, differences):
    paper, other = (yaml.safe_load((RECIPES_FOLDER / f"{each}.yaml").read_text()) for each in ("paper", name))
    assert {key for key in paper.keys() | other.keys() if paper.get(key) != other.get(key)} == differences


def test_recipe_for_small_cards_trains(echonet_dir, tmp_path):
    """Both stages for two steps; paper_ddp runs in two processes, see test_processes."""
    output = tmp_path / "model"
    train_two_steps("paper_24gb", echonet_dir, output, gradient_accumulation_steps=2)
    run = json.loads((output / "run.json").read_text())
    assert (run["training.bf16"], run["training.per_device_train_batch_size"]) == (True, 10)
    for stage in (1, 2):
        assert json.loads((output / f"stage{stage}" / "trainer_state.json").read_text())["global_step"] == 2
