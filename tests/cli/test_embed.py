import json
import shutil

import pandas as pd
import pytest
import torch
from transformers import VideoMAEModel, VideoMAEVideoProcessor

from echomen_hf import EchoMENModel, Predictor
from echomen_hf.cli import invoke
from echomen_hf.data.clip_vectors import read_clip_vectors
from echomen_hf.inference import load_checkpoint
from helpers.tiny_encoders import tiny_encoder_config


STAGE_2 = ["--stage", "2", "--stage2_num_train_epochs", "3", "--optim", "adamw_torch", "--learning_rate", "1e-2"]
STAGE_2 += ["--report_to", "none", "--use_cpu", "--disable_tqdm", "true", "--seed", "5"]
STAGE_2 += ["--per_device_train_batch_size", "6"]


@pytest.fixture(scope="module")
def vectors(trained, echonet_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    flags = ["--draws", "3", "--crop_padding", "3", "--seed", "5", "--device", "cpu", "--num_workers", "0"]
    invoke(["embed", "--model", str(trained), "--data_dir", str(echonet_dir), "--output", str(path), *flags])
    return path


@pytest.fixture(scope="module")
def on_vectors(trained, vectors, tmp_path_factory):
    """Heads of the trained model, trained again on vectors, with labels from the file itself."""
    output = tmp_path_factory.mktemp("on_vectors") / "run"
    invoke(["train", *STAGE_2, "--model", str(trained), "--embeddings", str(vectors), "--output_dir", str(output)])
    return output


def assert_equal_weights(first, second):
    first, second = (EchoMENModel.from_pretrained(folder).state_dict() for folder in (first, second))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_stage_2_on_vectors_equals_stage_2_through_the_encoder(trained, on_vectors, echonet_dir, tmp_path):
    flags = ["--model", str(trained), "--data_dir", str(echonet_dir), "--embedding_draws", "3"]
    flags += ["--crop_padding", "3", "--eval_protocol", "windows"]
    invoke(["train", *STAGE_2, *flags, "--output_dir", str(tmp_path / "run")])
    assert_equal_weights(on_vectors, tmp_path / "run")
    configs = [EchoMENModel.from_pretrained(folder).config for folder in (on_vectors, tmp_path / "run")]
    assert configs[0].interval_calibration == configs[1].interval_calibration
    assert configs[0].usual_distance == configs[1].usual_distance


def test_evaluation_of_vectors_equals_that_of_the_videos(on_vectors, vectors, echonet_dir, tmp_path):
    given = ["--model", str(on_vectors), "--bootstrap_samples", "20", "--device", "cpu"]
    invoke(["evaluate", *given, "--embeddings", str(vectors), "--output", str(tmp_path / "vectors")])
    invoke(["evaluate", *given, "--data_dir", str(echonet_dir), "--output", str(tmp_path / "videos")])
    tables = [pd.read_csv(tmp_path / name / "predictions.csv") for name in ("vectors", "videos")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    found, expected = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("vectors", "videos"))
    known = {name: value for name, value in expected["metrics"].items() if value is not None}
    assert {name: found["metrics"][name] for name in known} == pytest.approx(known, rel=1e-5)
    assert found["comparison"].keys() == expected["comparison"].keys()
    assert found["prediction_intervals"] is not None
    assert (tmp_path / "vectors" / "report.md").is_file()


def test_clips_are_those_of_the_protocol(vectors, echonet_dir):
    found = pd.read_parquet(vectors)
    assert set(found["split"]) == {"train", "validation", "test"}
    counts = found[found["split"] == "train"].groupby("file_name").size()
    assert set(counts) == {3}
    assert read_clip_vectors(vectors).protocol == "windows"
    assert found.groupby("file_name")["EF"].nunique().max() == 1


def test_vectors_of_cached_frames(trained, vectors, echonet_dir, tmp_path):
    flags = ["--draws", "3", "--crop_padding", "3", "--seed", "5", "--device", "cpu", "--num_workers", "0"]
    flags += ["--frame_cache", str(tmp_path / "frames"), "--output", str(tmp_path / "vectors.parquet")]
    invoke(["embed", "--model", str(trained), "--data_dir", str(echonet_dir), *flags])
    assert torch.equal(read_clip_vectors(tmp_path / "vectors.parquet").vectors, read_clip_vectors(vectors).vectors)


def test_heads_alone_on_vectors_of_any_origin(echonet_dir, tmp_path):
    """Vectors that tell the EF, of an encoder that nobody here has; labels and splits are those of the data set."""
    table = pd.read_csv(echonet_dir / "FileList.csv")
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(24, generator=generator)
    noise = torch.randn(len(table), 24, generator=generator)
    made = (torch.tensor(table["EF"].to_numpy() / 50 - 1)[:, None] * direction + 0.1 * noise).float()
    names = table["FileName"]
    pd.DataFrame({"file_name": names, "features": list(made.numpy())}).to_parquet(tmp_path / "theirs.parquet")
    flags = ["--embeddings", str(tmp_path / "theirs.parquet"), "--data_dir", str(echonet_dir)]
    flags += ["--expert_solver", "least_squares", "--model_config", '{"num_experts": 2}']
    output = tmp_path / "run"
    invoke(["train", *STAGE_2, *flags, "--output_dir", str(output)])
    config = EchoMENModel.from_pretrained(output).config
    assert (config.vector_size, config.embedding_size, config.num_experts) == (24, 24, 2)
    assert config.interval_calibration["protocol"] == "vectors"
    given = ["--model", str(output), "--bootstrap_samples", "0", "--device", "cpu"]
    invoke(["evaluate", *given, *flags[:4], "--output", str(tmp_path / "test")])
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())["metrics"]
    assert metrics["mae"] < 3
    with pytest.raises(ValueError, match="no encoder: it was trained on vectors"):
        Predictor(str(output))


def test_adapter_learns_what_no_line_through_the_vectors_tells(tmp_path):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2400, 12, generator=generator)
    labels = (70 - 20 * vectors[:, 0].abs().clamp(max=3)).tolist()
    columns = {"file_name": [f"v{n}" for n in range(2400)], "EF": labels, "split": ["train"] * 2000 + ["val"] * 400}
    pd.DataFrame({**columns, "vector": list(vectors.numpy())}).to_parquet(tmp_path / "vectors.parquet")
    flags = ["--embeddings", str(tmp_path / "vectors.parquet"), "--num_train_epochs", "5"]
    flags += ["--per_device_train_batch_size", "40", "--expert_solver", "least_squares"]
    found = {}
    for name, changes in (("heads", []), ("adapter", ["--stage", "both", "--model_config", '{"adapter_size": 32}'])):
        output = tmp_path / name
        invoke(["train", *STAGE_2, *flags, *changes, "--output_dir", str(output)])
        log = json.loads((output / "stage2" / "trainer_state.json").read_text())
        found[name] = log["best_metric"]
        assert EchoMENModel.from_pretrained(output).config.prediction_head == "experts"
    assert found["adapter"] < 0.6 * found["heads"]


class TestBadInput:
    def test_stage_1_without_an_adapter(self, vectors, tmp_path):
        flags = ["--embeddings", str(vectors), "--output_dir", str(tmp_path / "run")]
        with pytest.raises(ValueError, match="stage 1 trains an adapter, which the model does not have.*adapter_size"):
            invoke(["train", *STAGE_2, *flags, "--stage", "both"])

    def test_vectors_of_another_encoder(self, trained, vectors, tmp_path):
        found = pd.read_parquet(vectors)
        found["vector"] = [[1.0, *vector] for vector in found["vector"]]
        found.to_parquet(tmp_path / "longer.parquet")
        flags = ["--embeddings", str(tmp_path / "longer.parquet"), "--model", str(trained)]
        with pytest.raises(ValueError, match="have 9 numbers, and the model takes in 8: give those that its"):
            invoke(["train", *STAGE_2, *flags, "--output_dir", str(tmp_path / "run")])
        with pytest.raises(ValueError, match="have 9 numbers, and the model works on 8"):
            invoke(["evaluate", *flags, "--output", str(tmp_path / "test"), "--device", "cpu"])

    def test_vectors_of_an_encoder_with_other_weights(self, trained, vectors, tmp_path):
        model, processor = load_checkpoint(trained)
        with torch.no_grad():
            model.get_input_embeddings().weight.add_(0.1)
        model.save_pretrained(tmp_path / "other")
        processor.save_pretrained(tmp_path / "other")
        flags = ["--embeddings", str(vectors), "--model", str(tmp_path / "other")]
        with pytest.raises(ValueError, match=r"vectors.parquet were made by an encoder with other weights"):
            invoke(["train", *STAGE_2, *flags, "--output_dir", str(tmp_path / "run")])
        with pytest.raises(ValueError, match=r"vectors.parquet were made by an encoder with other weights"):
            invoke(["evaluate", *flags, "--output", str(tmp_path / "test"), "--device", "cpu"])

    def test_run_goes_on_from_the_same_encoder_only(self, tmp_path):
        columns = {
            "file_name": ["a", "b", "c", "d"],
            "EF": [30.0, 60.0, 40.0, 50.0],
            "split": [*2 * ["train"], *2 * ["val"]],
        }
        generator = torch.Generator().manual_seed(0)
        columns["vector"] = list(torch.randn(4, 16, generator=generator).numpy())
        pd.DataFrame(columns).to_parquet(tmp_path / "vectors.parquet")
        for folder in ("one", "other"):
            VideoMAEModel(tiny_encoder_config("videomae")).save_pretrained(tmp_path / folder / "videomae")
            size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
            VideoMAEVideoProcessor(**size).save_pretrained(tmp_path / folder / "videomae")
        flags = [*STAGE_2, "--embeddings", str(tmp_path / "vectors.parquet"), "--output_dir", str(tmp_path / "run")]
        flags += ["--interval_coverage", "0"]
        invoke(["train", *flags, "--encoder", str(tmp_path / "one" / "videomae")])
        (tmp_path / "one").rename(tmp_path / "moved")
        invoke(["train", *flags, "--encoder", str(tmp_path / "moved" / "videomae")])
        with pytest.raises(ValueError, match=r"run\.encoder_sha256 was .* and is"):
            invoke(["train", *flags, "--encoder", str(tmp_path / "other" / "videomae")])

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--eval_protocol", "nonsense"], r"encoder: leave out `--eval_protocol` \(default: center\)\."),
            (["--train_encoder", "lora"], r"leave out `--train_encoder` \(default: all\)"),
            (["--simulated_videos", "8", "--frame_cache", "x"], r"out `--frame_cache` \(.*`--simulated_videos` \("),
            (["--split_by", "patient"], "^`--split_by` says how to read a data set, and there is only a file"),
            (["--model_config", '{"vector_size": 99}'], "have 8 numbers, and the model takes in 99.*`vector_size`"),
        ],
    )
    def test_settings_that_vectors_leave_no_choice_of(self, flags, message, vectors, tmp_path):
        given = ["--embeddings", str(vectors), "--output_dir", str(tmp_path / "run")]
        with pytest.raises(ValueError, match=message):
            invoke(["train", *STAGE_2, *given, *flags])

    def test_splits_that_vectors_lack(self, vectors, tmp_path):
        found = pd.read_parquet(vectors)
        found[found["split"] != "validation"].to_parquet(tmp_path / "v.parquet")
        flags = ["--embeddings", str(tmp_path / "v.parquet"), "--output_dir", str(tmp_path / "run")]
        with pytest.raises(ValueError, match="no validation videos.* mark some as VAL in column Split.$"):
            invoke(["train", *STAGE_2, *flags])

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--protocol", "center"], "clips that are chosen already: leave out --protocol"),
            (["--share_windows"], "clips that are chosen already: leave out --protocol and --share_windows"),
            (["--split_by", "patient"], "^--split_by says how to read a data set"),
        ],
    )
    def test_options_that_an_evaluation_of_vectors_leaves_no_choice_of(
        self, flags, message, on_vectors, vectors, tmp_path
    ):
        given = ["--model", str(on_vectors), "--embeddings", str(vectors), "--output", str(tmp_path / "test")]
        with pytest.raises(ValueError, match=message):
            invoke(["evaluate", *given, *flags])

    def test_damaged_video_is_found_before_the_others_are_embedded(self, trained, echonet_dir, tmp_path, monkeypatch):
        shutil.copytree(echonet_dir, tmp_path / "data")
        table = pd.read_csv(tmp_path / "data" / "FileList.csv")
        name = table.loc[table["Split"] == "TEST", "FileName"].iloc[0]
        (tmp_path / "data" / "Videos" / f"{name.removesuffix('.avi')}.avi").write_bytes(b"no video")
        monkeypatch.setattr("echomen_hf.training.embeddings.embed", lambda *_: pytest.fail("the encoder was run"))
        flags = ["--data_dir", str(tmp_path / "data"), "--output", str(tmp_path / "x.parquet")]
        with pytest.raises(ValueError, match="1 video cannot be used"):
            invoke(["embed", "--model", str(trained), *flags, "--device", "cpu"])

    def test_two_sources(self, trained, echonet_dir, tmp_path):
        flags = ["--data_dir", str(echonet_dir), "--output", str(tmp_path / "x.parquet")]
        with pytest.raises(ValueError, match="either --model, an EchoMEN model, or --encoder"):
            invoke(["embed", *flags])
        with pytest.raises(ValueError, match=r"in .parquet or .safetensors files"):
            invoke(["embed", "--model", str(trained), *flags[:2], "--output", str(tmp_path / "x.csv")])

    def test_table_of_the_videos_is_no_output(self, tmp_path):
        table = tmp_path / "hospital.parquet"
        pd.DataFrame({"path": ["a.avi"], "EF": [55]}).to_parquet(table)
        data = table.read_bytes()
        with pytest.raises(ValueError, match="hospital.parquet is an input of this command"):
            invoke(["embed", "--model", "none", "--data_dir", str(table), "--output", str(table)])
        assert table.read_bytes() == data

    def test_nothing_to_evaluate_on(self, trained, tmp_path):
        with pytest.raises(ValueError, match="as --data_dir, or vectors as --embeddings"):
            invoke(["evaluate", "--model", str(trained), "--output", str(tmp_path)])
