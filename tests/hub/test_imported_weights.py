import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from echomen_hf import EchoMENConfig, EchoMENModel, Predictor, load_echonet_dynamic
from echomen_hf.cli import invoke
from echomen_hf.data import pixel_statistics
from echomen_hf.hub import import_weights
from echomen_hf.inference import load_checkpoint


WITHOUT_PROCESSES = ["--use_cpu", "--report_to", "none", "--disable_tqdm", "true", "--dataloader_num_workers", "0"]
WITHOUT_PROCESSES += ["--dataloader_persistent_workers", "false"]


def release(state, **further):
    """What EchoNet-Dynamic's training saves: names of a model in parallel, optimizer state, and metrics of numpy."""
    weights = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weights], lr=1e-4, momentum=0.9)
    weights.sum().backward()
    optimizer.step()
    return {
        "epoch": 44,
        "state_dict": {f"module.{name}": value for name, value in state.items()},
        "period": 2,
        "frames": 32,
        "best_loss": float("inf"),
        "loss": 29.9,
        "r2": np.float64(0.81),
        "opt_dict": optimizer.state_dict(),
        "scheduler_dict": torch.optim.lr_scheduler.StepLR(optimizer, 15).state_dict(),
        **further,
    }


@pytest.fixture(scope="module")
def network():
    """torchvision's network with random weights, and EchoNet-Dynamic's head."""
    video_models = pytest.importorskip("torchvision.models.video")
    torch.manual_seed(1)
    network = video_models.r2plus1d_18().eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    network.fc = torch.nn.Linear(512, 1)
    network.fc.bias.data[0] = 55.6
    return network


@pytest.fixture(scope="module")
def imported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    torch.save(release(network.state_dict()), folder / "r2plus1d_18_32_2_pretrained.pt")
    file, output = folder / "r2plus1d_18_32_2_pretrained.pt", folder / "echonet"
    assert invoke(["import-weights", str(file), "--output", str(output)]) == 0
    return output


def test_embedding_and_ejection_fraction_are_those_of_the_network_in_torchvision(network, imported):
    model, _ = load_checkpoint(imported)
    clips = torch.randn(2, 8, 3, 64, 64)
    features = []
    handle = network.fc.register_forward_hook(lambda layer, inputs, output: features.append(inputs[0]))
    with torch.inference_mode():
        expected = network(clips.transpose(1, 2))
        output = model(pixel_values=clips)
    handle.remove()
    assert features[0].abs().max() > 0.1
    torch.testing.assert_close(output.embedding, features[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits, expected, atol=1e-3, rtol=0)


def test_a_video_is_read_and_normalised_as_its_authors_did(network, imported, tmp_path, write_video):
    frames = np.random.default_rng(0).integers(0, 256, (16, 14, 14), dtype=np.uint8).repeat(4, axis=0)
    frames = frames.repeat(8, axis=1).repeat(8, axis=2)  # (64, 112, 112)
    write_video(tmp_path / "clip.avi", frames, codec="ffv1", pix_fmt="gray", fps=50)
    pixels = torch.from_numpy((frames[:64:2].astype(np.float32) - 32.6) / 49.9)  # (T, H, W)
    with torch.inference_mode():
        expected = network(pixels.expand(1, 3, -1, -1, -1)).item()
    prediction = Predictor(imported, protocol="center", check_view=False)(tmp_path / "clip.avi")
    assert prediction.ejection_fraction == pytest.approx(expected, abs=1e-3)


def test_card_states_origin_and_terms_and_run_json_the_file(imported):
    card = (imported / "README.md").read_text()
    assert "license_name: research-use-only" in card and "https://echonet.github.io/dynamic/" in card
    assert "r2plus1d_18_32_2_pretrained.pt" in card and "32.60; 49.90" in card
    assert "no redistribution" in card and "Kinetics" not in card
    settings = json.loads((imported / "run.json").read_text())
    assert settings["run.backbone_checkpoint"] == "r2plus1d_18_32_2_pretrained.pt"
    assert settings["run.backbone_sha256"] in card


@pytest.fixture
def state(tiny_model):
    return {name: value.clone() for name, value in tiny_model.encoder.state_dict().items()}


@pytest.fixture
def head():
    return {"fc.weight": torch.randn(1, 8), "fc.bias": torch.tensor([54.0])}


def same_encoder(folder, state):
    found = EchoMENModel.from_pretrained(folder).encoder.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_all_formats(state, head, tiny_config, tmp_path, legacy):
    file = tmp_path / "weights.pt"
    torch.save(release(state | head), file, _use_new_zipfile_serialization=not legacy)
    model = import_weights(file, tmp_path / "model", config=tiny_config)
    assert model.config.prediction_head == "regression"
    assert tiny_config.prediction_head == "experts"
    assert same_encoder(tmp_path / "model", state)
    assert model.regression_head.bias.item() == 54
    save_file(state | head, tmp_path / "weights.safetensors")
    import_weights(tmp_path / "weights.safetensors", tmp_path / "other", config=tiny_config)
    assert same_encoder(tmp_path / "other", state)


def test_numbers_that_no_file_has_are_the_same_every_time(state, head, tiny_config, tmp_path):
    torch.save(release(state | head), tmp_path / "weights.pt")
    first, second = (import_weights(tmp_path / "weights.pt", tmp_path / name, config=tiny_config) for name in "ab")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_pixels_are_measured_on_a_training_split(state, head, tiny_config, tiny_processor, echonet_dir, tmp_path):
    torch.save(release(state | head), tmp_path / "weights.pt")
    videos = load_echonet_dynamic(echonet_dir, split="train")
    import_weights(tmp_path / "weights.pt", tmp_path / "model", config=tiny_config, videos=videos)
    _, processor = load_checkpoint(tmp_path / "model")
    assert (processor.image_mean[0], processor.image_std[0]) == pixel_statistics(videos, tiny_processor)
    assert "measured on the videos" in (tmp_path / "model" / "README.md").read_text()


@pytest.fixture
def kinetics(state, tiny_config, tmp_path):
    torch.save(state | {"fc.weight": torch.randn(400, 8), "fc.bias": torch.randn(400)}, tmp_path / "r2plus1d_18.pth")
    import_weights(tmp_path / "r2plus1d_18.pth", tmp_path / "kinetics", config=tiny_config)
    return tmp_path / "kinetics"


class TestEncoderWithoutHead:
    def test_is_marked_as_such(self, kinetics, state):
        assert EchoMENConfig.from_pretrained(kinetics).prediction_head is None
        assert same_encoder(kinetics, state)
        card = (kinetics / "README.md").read_text()
        assert "Kinetics-400" in card and "license_name: torchvision-kinetics-400" in card
        assert "no head for the ejection fraction" in card

    @pytest.mark.parametrize(
        "command",
        [
            ["predict", "DATA", "--model", "MODEL"],
            ["evaluate", "--data_dir", "DATA", "--model", "MODEL", "--output", "report"],
            ["calibrate", "--data_dir", "DATA", "--model", "MODEL"],
            ["export", "MODEL", "--output", "export"],
            ["train", "--stage", "2", "--model", "MODEL", "--data_dir", "DATA", "--output_dir", "out", "--use_cpu"],
        ],
        ids=lambda command: command[0],
    )
    def test_commands_that_need_a_head_say_what_to_do(self, kinetics, echonet_dir, tmp_path, monkeypatch, command):
        monkeypatch.chdir(tmp_path)
        places = {"MODEL": str(kinetics), "DATA": str(echonet_dir)}
        with pytest.raises(ValueError, match="not trained yet: train both stages, .* `echomen train --model"):
            invoke([places.get(word, word) for word in command])

    def test_forward_gives_no_number(self, kinetics, tiny_config):
        model = EchoMENModel.from_pretrained(kinetics)
        with pytest.raises(ValueError, match="No head of this model is trained"):
            model(embedding=torch.zeros(1, 8))

    def test_training_starts_from_it(self, kinetics, recipe, echonet_dir, tmp_path):
        command = ["train", str(recipe), "--stage", "1", "--model", str(kinetics), "--max_steps", "1"]
        invoke([*command, "--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "run")])
        assert load_checkpoint(tmp_path / "run")[0].config.prediction_head == "regression"


def test_recipe_gives_imported_weights_experts_on_the_same_encoder(state, head, tiny_config, echonet_dir, tmp_path):
    torch.save(release(state | head), tmp_path / "weights.pt")
    import_weights(tmp_path / "weights.pt", tmp_path / "model", config=tiny_config)
    command = ["train", "echonet_weights_stage2", "--model", str(tmp_path / "model"), *WITHOUT_PROCESSES]
    # The tiny validation split does not have all categories.
    command += ["--stage2_metric_for_best_model", "mae", "--stage2_num_train_epochs", "2"]
    invoke([*command, "--data_dir", str(echonet_dir), "--output_dir", str(tmp_path / "run")])
    assert same_encoder(tmp_path / "run", state)
    model, processor = load_checkpoint(tmp_path / "run")
    assert model.config.prediction_head == "experts"
    assert processor.image_mean == [32.6]
    assert len(list((tmp_path / "run" / "stage2" / "embeddings").glob("train-*"))) == 4


def test_weights_of_another_network(tmp_path):
    video_models = pytest.importorskip("torchvision.models.video")
    with torch.device("meta"):
        names = {name: torch.zeros(value.shape) for name, value in video_models.mc3_18().state_dict().items()}
    torch.save(release(names), tmp_path / "mc3_18.pt")
    with pytest.raises(ValueError, match=r"mc3_18.pt does not fit the encoder") as caught:
        import_weights(tmp_path / "mc3_18.pt", tmp_path / "model")
    message = str(caught.value)
    missing = [name for name in EchoMENModel(EchoMENConfig()).encoder.state_dict() if name not in names]
    assert f"{len(missing)} of its tensors are missing, such as" in message
    assert "stem.0.weight (64, 3, 3, 7, 7) instead of (45, 3, 1, 7, 7)" in message
    assert "layer1.0.conv1.0.weight (64, 64, 3, 3, 3)" in message
    assert not (tmp_path / "model").exists()


def test_code_in_a_file_is_named_and_not_run(state, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'harm')!r}, 'w').close()",))

    torch.save(release(state, r2=Harmful()), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt cannot be read .*would run exec"):
        import_weights(tmp_path / "weights.pt", tmp_path / "model")
    assert not (tmp_path / "harm").exists()


def test_folder_that_holds_something(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        import_weights(tmp_path / "weights.pt", tmp_path / "model")
