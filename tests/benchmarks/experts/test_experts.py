"""Experiments on experts and aggregator, on drawn vectors that tell the EF."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.experts import __main__ as command
from benchmarks.experts.heads import (
    REFITTED,
    HeadsOnVectors,
    SoftTargetStage,
    Splits,
    mean_by_video,
    predict_all,
    refit_heads,
    train_heads,
    training_split,
)
from benchmarks.experts.settings import EXPERIMENTS, NATURAL, Setting
from benchmarks.experts.tables import Cell, decision, experiment_rows, experiment_table, mean_and_sd
from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.labels import category_masks
from echomen_hf.model.modeling_echomen import EchoMENOutput
from echomen_hf.training.embeddings import EvaluationEmbeddings, TrainingEmbeddings
from helpers.documents import ROOT, read_page


SHORT = {"num_train_epochs": 3, "per_device_train_batch_size": 64, "learning_rate": 0.5, "expert_solver": "gradient"}


def draw(rng, count):
    """Vectors, (count, 6), of which the first number tells the EF, and labels."""
    labels = np.clip(rng.normal(58, 12, count), 5, 90)
    vectors = rng.normal(size=(count, 6))
    vectors[:, 0] += (labels - 55) / 10
    return torch.tensor(vectors, dtype=torch.float32), labels


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(0)
    train, labels = draw(rng, 600)
    evaluation = []
    for _ in range(2):
        vectors, of_split = draw(rng, 120)
        clips = torch.cat([vectors, vectors + 0.1])
        names = [str(number) for number in range(120)]
        evaluation.append(EvaluationEmbeddings(clips, np.tile(np.arange(120), 2), of_split, names))
    return Splits(TrainingEmbeddings(train[None], labels.tolist()), *evaluation)


@pytest.fixture(scope="module")
def stage_1():
    torch.manual_seed(0)
    return EchoMENModel(EchoMENConfig(vector_size=6, aggregator_hidden_size=4, head_initializer_range=1.0)).eval()


def counts(split):
    return {name: int(mask.sum()) for name, mask in category_masks(split.ejection_fractions).items()}


def test_training_split_is_thinned(splits):
    before = counts(splits.train)
    rarer = counts(training_split(splits.train, replace(NATURAL, imbalance=40), 0))
    assert rarer["hfpef"] == before["hfpef"]
    assert rarer["hfpef"] / rarer["hfref"] == pytest.approx(40, rel=0.1)
    assert rarer["hfmref"] / before["hfmref"] == pytest.approx(rarer["hfref"] / before["hfref"], abs=0.02)
    evened = counts(training_split(splits.train, replace(NATURAL, imbalance=1), 0))
    assert evened["hfref"] == before["hfref"] and evened["hfpef"] == pytest.approx(before["hfref"], abs=1)
    fewer = counts(training_split(splits.train, replace(NATURAL, weak_share=0.5), 0))
    assert fewer["hfref"] == pytest.approx(before["hfref"] / 2, abs=1) and fewer["hfmref"] == before["hfmref"]


def test_labels_are_made_noisier_and_vectors_stay_with_theirs(splits):
    noisy = training_split(splits.train, replace(NATURAL, label_noise=8), 0)
    errors = np.array(noisy.ejection_fractions) - splits.train.ejection_fractions
    assert np.std(errors) == pytest.approx(8, rel=0.15)
    kept = training_split(splits.train, replace(NATURAL, weak_share=0.2), 1)
    known = {
        vector.numpy().tobytes(): label
        for vector, label in zip(splits.train.embeddings, splits.train.ejection_fractions)
    }
    for index in (0, 100, len(kept) - 1):
        item = kept[index]
        assert known[item["embedding"].numpy().tobytes()] == item["labels"]


def test_refitted_heads_minimise_their_weighted_errors(splits):
    heads = refit_heads(splits.train, min_count=1)
    weight, bias = heads[REFITTED[0.0]]
    design = np.column_stack([splits.train.embeddings.double().numpy(), np.ones(len(splits.train))])
    expected = np.linalg.lstsq(design, np.array(splits.train.ejection_fractions), rcond=None)[0]
    assert weight.numpy() == pytest.approx(expected[:-1], abs=1e-3) and float(bias) == pytest.approx(
        expected[-1], abs=1e-3
    )
    slopes = [float(weight[0]) for weight, _ in heads.values()]
    assert slopes == sorted(slopes)  # rare labels count more, so that predictions shrink less


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden_experts": True},
        {"aggregator_input": "experts"},
        {"aggregator_input": "both"},
        {"soft_target": 4.0, "training": {"expert_solver": "least_squares"}},
        {"training": {"expert_min_count": 0.01, "aggregator_gradients": "joint"}, "starts_solved": True},
    ],
)
def test_every_kind_of_head_is_trained(splits, stage_1, changes):
    setting = Setting(name="", title="", **{**changes, "training": {**SHORT, **changes.get("training", {})}})
    torch.manual_seed(3)
    model = train_heads(stage_1, splits, setting, seed=3)
    torch.manual_seed(3)
    config = model.config
    before = HeadsOnVectors(config, setting).state_dict()
    assert any(
        not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "aggregator" in name
    )
    found = predict_all(model, stage_1, splits, setting)["test"]
    assert found["weights"].sum(axis=1) == pytest.approx(1, abs=1e-5)
    errors = {name: np.abs(values - splits.test.labels).mean() for name, values in found.items() if name != "weights"}
    assert errors["EchoMEN"] < errors["stage-1 head"]
    assert errors["oracle"] <= min(errors[f"expert {number}"] for number in range(3))
    if setting.training["expert_solver"] == "least_squares":
        # In closed form, and with the same weights, an expert is a refitted head.
        assert found["expert 0"] == pytest.approx(found["head refitted"], abs=1e-3)


def test_soft_targets_are_how_likely_the_error_of_each_expert_is(make_arguments, stage_1):
    labels = torch.tensor([40.0, 60.0, 40.0])
    stage = SoftTargetStage(make_arguments(stage="2"), stage_1, labels.double())
    predictions = torch.tensor([[40.0, 44.0, 48.0]] * 3, requires_grad=True)
    targets = torch.tensor([-0.0, -0.5, -2.0]).exp() / torch.tensor([-0.0, -0.5, -2.0]).exp().sum()

    def loss(weights):
        outputs = EchoMENOutput(expert_predictions=predictions[::2], expert_weights=weights.expand(2, 3))
        return stage.loss(stage_1, outputs, labels[::2], 1)[0]

    entropy = -(targets * targets.log()).sum()
    assert loss(targets).item() == pytest.approx(entropy.item(), rel=1e-5)  # the least that a cross-entropy can be
    assert loss(torch.tensor([0.4, 0.3, 0.3])) > entropy
    assert not loss(targets).requires_grad  # experts do not learn from it


def test_clips_are_averaged_by_video(splits):
    values = torch.arange(240.0)
    assert mean_by_video(values, splits.test) == pytest.approx(np.arange(120) + 60)


def make_cell(seed, **errors):
    labels = {split: np.array([30.0, 35.0, 45.0, 48.0, 60.0, 65.0]) for split in ("validation", "test")}
    heads = {"EchoMEN": 1.0, "mean of experts": 1.0, "oracle": 0.5, "stage-1 head": 3.0}
    heads |= {**dict.fromkeys(REFITTED.values(), 2.0), "expert 0": 4.0, "expert 1": 1.5, "expert 2": 5.0, **errors}
    rng = np.random.default_rng(seed)
    predictions = {
        split: {name: of_split + error + rng.normal(0, 0.01, 6) for name, error in heads.items()}
        for split, of_split in labels.items()
    }
    predictions["validation"]["expert 1"] = labels["validation"]
    predictions["test"]["weights"] = np.tile([0.2, 0.3, 0.5], (6, 1))
    return Cell(seed, predictions, labels)


def test_tables_and_decision():
    settings = [replace(NATURAL, name=name, title=f"{name}, floor 1") for name in ("good", "bad", "missing")]
    cells = {
        "good": [make_cell(seed) for seed in range(3)],
        "bad": [make_cell(seed, EchoMEN=6.0) for seed in range(3)],
    }
    rows = experiment_rows(settings, cells)
    assert len(rows) == 2 * 8
    ensemble, best = rows[0], rows[2]
    assert ensemble["balanced_mae"] == pytest.approx([1] * 3, abs=0.02) and ensemble["weights"] == pytest.approx(
        [0.2, 0.3, 0.5]
    )
    assert ensemble["difference"] == pytest.approx(-1, abs=0.02) and ensemble["p_value"] < 0.001
    assert best["head"] == "best expert on VAL" and best["balanced_mae"] == pytest.approx([1.5] * 3, abs=0.02)
    text = experiment_table("Title", rows)
    assert text.startswith("## Title\n\n| Setting") and "0.20 (0.00), 0.30 (0.00), 0.50 (0.00)" in text
    again = experiment_table("Title", [*rows, *rows])
    assert len(again.splitlines()) == len(text.splitlines()) + 2  # of a setting that changes nothing, EchoMEN alone
    found = decision(settings, cells)
    assert found["way"] == "good, floor 1" and found["ways"] == 2
    assert found["balanced_mae"] == pytest.approx([1, 2], abs=0.02) and found["p_value"] < 0.001
    assert found["single"]["difference"] == pytest.approx(-0.5, abs=0.02)


def test_settings_have_names_of_their_own():
    by_name = {}
    for _, settings in EXPERIMENTS.values():
        for setting in settings:
            same = by_name.setdefault(setting.name, setting)
            assert replace(same, title="") == replace(setting, title="")


def test_finished_settings_are_not_trained_again(tmp_path, monkeypatch, splits, stage_1):
    monkeypatch.setattr(command, "is_finished", lambda folder: True)
    monkeypatch.setattr(command, "embed_once", lambda *args: None)
    monkeypatch.setattr(command, "read_clip_vectors", lambda path: None)
    monkeypatch.setattr(command, "read_splits", lambda vectors: splits)
    monkeypatch.setattr(command.EchoMENModel, "from_pretrained", lambda path: stage_1)
    monkeypatch.setattr(command, "train_heads", lambda *args: stage_1)
    floors = EXPERIMENTS["floor"][1][:2]
    monkeypatch.setattr(command, "EXPERIMENTS", {"floor": ("Floors", floors), "aggregators": ("Ways", floors)})
    given = [str(tmp_path), "--data_dir", "data", "--output", str(tmp_path), "--experiments", "floor", "aggregators"]
    command.main([*given, "--seeds", "0", "1"])
    text = (tmp_path / "floor.md").read_text()
    assert "| floor 1, aggregator f^-1 |" in text and "seeds 0, 1" in text
    assert json.loads((tmp_path / "decision.json").read_text())["ways"] == 2
    monkeypatch.setattr(command, "train_heads", None)
    command.main([*given, "--seeds", "0", "1"])
    assert (tmp_path / "floor.md").read_text() == text


def test_numbers_of_the_page_are_those_of_the_committed_tables():
    folder = ROOT / "docs" / "results" / "experts"
    rows = {(row["setting"], row["head"]): row for row in json.loads((folder / "imbalance.json").read_text())}
    heads = {"EchoMEN, aggregator f^-1": ("as it is, aggregator f^-1", "EchoMEN"), "EchoMEN": ("as it is", "EchoMEN")}
    page = read_page("docs/results/experts.md")
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith("|") and "±" in line
    ]
    assert len(table) == 8
    for title, validation, *errors, _ in table:
        row = rows[heads.get(title, ("as it is", title[0].lower() + title[1:]))]
        columns = np.column_stack([row["balanced_mae"], row["mae_by_category"]]).T
        assert validation == f"{row['validation_balanced_mae']:.2f}"
        assert errors == [mean_and_sd(column) for column in columns]
    found = json.loads((folder / "decision.json").read_text())
    assert f"p = {found['p_value']:.3f}" in " ".join(page.split())
