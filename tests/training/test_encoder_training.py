import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENTrainer, EchoMENVideoProcessor
from echomen_hf.data import EvaluationClips, TrainingClips
from echomen_hf.training import fit
from echomen_hf.training.encoder_training import encoder_blocks, parse_train_encoder
from helpers.tiny_config import make_tiny_config
from helpers.tiny_encoders import ENCODERS, tiny_encoder_config


def make_model(name):
    torch.manual_seed(0)
    config = make_tiny_config() if name == "r2plus1d" else EchoMENConfig(encoder_config=tiny_encoder_config(name))
    return EchoMENModel(config)


def changed(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.fixture
def train(videos, make_arguments):
    """Function that trains stage 1 of a model for two steps."""

    def train(model, **changes):
        clips = TrainingClips(videos["train"], EchoMENVideoProcessor.for_model(model.config), 2, crop_padding=3)
        settings = {"max_steps": 2, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        args = make_arguments(**{**settings, "optim": "adamw_torch", "learning_rate": 1e-2, **changes})
        EchoMENTrainer(model=model, args=args, train_dataset=clips).train()
        return model

    return train


def test_blocks():
    assert [type(block).__name__ for block in encoder_blocks(make_model("r2plus1d").encoder)] == ["R2Plus1DBlock"] * 2
    for name in ENCODERS:
        assert len(encoder_blocks(make_model(name).encoder)) == (3 if name == "uvt" else 2), name
    uniformer = encoder_blocks(make_model("echo_uniformer").encoder)
    assert [type(block).__name__ for block in uniformer] == ["LocalBlock", "GlobalBlock"]


def test_which_parts_are_the_blocks_is_not_guessed():
    two_lists = nn.ModuleDict({name: nn.ModuleList([nn.Linear(1, 1)]) for name in ("embeddings", "layers")})
    with pytest.raises(ValueError, match="blocks of ModuleDict is not clear: for `train_encoder`, choose none"):
        encoder_blocks(two_lists)


@pytest.mark.parametrize("name", ["r2plus1d", "videomae"])
def test_no_part_of_the_encoder(name, train):
    model = make_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    parts = {key.split(".")[0] for key in changed(train(model, train_encoder="none"), before)}
    assert parts == {"projector", "regression_head"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_last_blocks_of_a_convolutional_network_with_their_batch_statistics(train):
    model = make_model("r2plus1d")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = changed(train(model, train_encoder="last_1"), before)
    parts = {".".join(key.split(".")[:2]) for key in found if key.startswith("encoder.")}
    assert parts == {"encoder.layer2"}
    assert any("running_mean" in key for key in found)


def test_last_blocks_of_a_transformer(train):
    model = make_model("timesformer")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = {key for key in changed(train(model, train_encoder="last_1"), before) if key.startswith("encoder.")}
    assert any(key.startswith("encoder.model.encoder.layer.1.") for key in found)
    assert not any(".embeddings." in key or ".layer.0." in key for key in found)
    assert "encoder.model.layernorm.weight" in found


def test_last_block_of_a_network_whose_embeddings_come_before_all_blocks(train):
    model = make_model("echo_uniformer")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = {key for key in changed(train(model, train_encoder="last_1"), before) if key.startswith("encoder.")}
    assert {".".join(key.split(".")[2:4]) for key in found if ".stages." in key} == {"stages.1"}
    assert not any(".embeddings." in key for key in found)
    assert "encoder.model.norm.weight" in found


class TestLowRank:
    @pytest.fixture(autouse=True)
    def peft(self):
        return pytest.importorskip("peft")

    def test_changes_linear_layers_by_matrices_of_low_rank(self, train):
        model = make_model("videomae")
        before = {key: value.clone() for key, value in model.state_dict().items()}
        train(model, train_encoder="lora", lora_rank=2)
        assert model.state_dict().keys() == before.keys()
        found = {key for key in changed(model, before) if key.startswith("encoder.")}
        linear = {f"encoder.{name}.weight" for name, m in model.encoder.named_modules() if type(m) is torch.nn.Linear}
        assert found == linear
        for key in found:
            change = (model.state_dict()[key] - before[key]).double()
            assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2, key

    def test_network_without_linear_layers(self, train):
        with pytest.raises(ValueError, match="lora, which changes linear layers, and this encoder has none"):
            train(make_model("r2plus1d"), train_encoder="lora")


@pytest.mark.parametrize(("name", "part"), [("videomae", "lora"), ("videomae", "all"), ("vivit", "all")])
def test_checkpoints_are_resumed_from_and_the_best_is_restored(name, part, videos, make_arguments, tmp_path):
    """Weights of which transformers has changed the names are among them."""
    if part == "lora":
        pytest.importorskip("peft")
    processor = EchoMENVideoProcessor.for_model(make_model(name).config)
    evaluation = EvaluationClips(videos["validation"], processor, "center")

    def run(folder, resume=None):
        args = make_arguments(
            output_dir=str(tmp_path / folder),
            train_encoder=part,
            max_steps=4,
            save_strategy="steps",
            eval_strategy="steps",
            save_steps=2,
            eval_steps=2,
            save_total_limit=None,
            optim="adamw_torch",
            learning_rate=1e-2,
        )
        clips = TrainingClips(videos["train"], processor, 2, crop_padding=3)
        trainer = EchoMENTrainer(model=make_model(name), args=args, train_dataset=clips, eval_dataset=evaluation)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run("whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = run("resumed", resume=str(tmp_path / "resumed" / "checkpoint-2"))
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())
    best = whole.state.best_metric
    assert whole.evaluate()["eval_mse"] == pytest.approx(best, abs=1e-4)
    if part == "all":
        stored = load_file(f"{whole.state.best_model_checkpoint}/model.safetensors")
        assert stored.keys() == whole.model.state_dict().keys()
        stored.pop(next(name for name in stored if name.startswith("encoder.")))
        with pytest.raises(ValueError, match="does not hold the weights of this model: encoder."):
            whole._issue_warnings_after_load(whole.model.load_state_dict(stored, strict=False))


@pytest.mark.parametrize("value", ["last_0", "last", "first_2", "lora_4"])
def test_unknown_parts(value):
    with pytest.raises(ValueError, match="`train_encoder` is none, all, lora, or last_"):
        parse_train_encoder(value)


def test_more_blocks_than_there_are(train, videos, make_arguments, tmp_path):
    message = "last_3, but the encoder has 2 blocks only"
    with pytest.raises(ValueError, match=message):
        train(make_model("videomae"), train_encoder="last_3")
    model, folder = make_model("videomae"), tmp_path / "run"
    args = make_arguments(output_dir=str(folder), train_encoder="last_3", stage="1")
    with pytest.raises(ValueError, match=message):
        fit(model, EchoMENVideoProcessor.for_model(model.config), videos["train"], videos["validation"], args)
    assert not any(folder.iterdir())


def test_both_stages_on_another_encoder(videos, make_arguments):
    model = make_model("vjepa2")
    processor = EchoMENVideoProcessor.for_model(model.config)
    args = make_arguments(stage="both", embedding_draws=2, train_encoder="last_1")
    trained = fit(model, processor, videos["train"], videos["validation"], args, crop_padding=3)
    assert trained.config.prediction_head == "experts"
    assert trained.config.encoder_config.model_type == "vjepa2"
    again = fit(make_model("vjepa2"), processor, videos["train"], videos["validation"], args, crop_padding=3)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in trained.state_dict().items())
