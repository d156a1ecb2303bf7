import json
from difflib import unified_diff
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from echomen_hf import EchoMENConfig
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.hub import create_model_card, read_run, stage_repository
from echomen_hf.hub.model_card import hearts_needed
from echomen_hf.hub.run_record import RunRecord
from echomen_hf.inference import load_checkpoint
from echomen_hf.model.prediction_interval_echomen import calibrate_intervals
from echomen_hf.training.fitting import COMPARED_ARGUMENTS
from helpers.tiny_encoders import tiny_encoder_config


EXPECTED = Path(__file__).with_name("expected_model_card.md")


@pytest.fixture
def make_card(run, tmp_path):
    """Function that stages the repository of the run, and returns its card and the warnings."""

    def make(**options):
        model, processor = load_checkpoint(run / "model")
        model.config.transformers_version = "5.23.0"
        record = read_run(run / "model", data_dir=run / "data" if (run / "data").is_dir() else None)
        folder = tmp_path / "staged"
        stage_repository(folder, model, processor, record, repo_id="me/heart", source=run / "model", **options)
        return (folder / "README.md").read_text(encoding="utf-8"), record.warnings

    return make


def test_whole_card(make_card):
    card, warnings = make_card()
    expected = EXPECTED.read_text(encoding="utf-8")
    assert card == expected, "\n".join(unified_diff(expected.splitlines(), card.splitlines(), "expected", "card"))
    assert warnings == [
        "The column 'Site' is not in the card: it has fewer than two different values.",
        "The column 'PatientID' is not in the card: it has 30 different values.",
    ]


def test_coverage_of_intervals_is_shown_where_it_was_measured(make_card, run):
    path = run / "test" / "metrics.json"
    document = json.loads(path.read_text())
    measured = {"all": {"coverage": 0.9, "width": 17.25, "n": 30}, "hfref": {"coverage": 2 / 3, "width": 30.0, "n": 3}}
    document["prediction_intervals"] = {"nominal_coverage": 0.9, "measured": measured}
    path.write_text(json.dumps(document))
    card = make_card()[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if "|" in line]
    assert ["Category", "n", "Coverage (nominal 90%)", "Mean width (EF points)"] in rows
    assert ["HFrEF", "3", "66.7%", "30.0"] in rows
    text = " ".join(card.split())
    assert "true EF of 90 % of the hearts of each category, if they are like those it was calibrated on" in text
    assert "at least 19 hearts of a category in the validation split" in text


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_number_of_hearts_that_an_interval_needs_is_that_of_the_calibration(coverage):
    needed = hearts_needed({"prediction_intervals": {"nominal_coverage": coverage}})
    for number, is_limited in ((needed - 1, False), (needed, True)):
        low, high = calibrate_intervals([20.0] * number, [20.0] * number, coverage)["offsets"]["hfref"]
        assert (low == high == 0) is is_limited


def test_every_hyperparameter_is_in_the_card(make_card):
    card, _ = make_card()
    for name in COMPARED_ARGUMENTS:
        assert name.startswith("stage2_") or f"| `{name}` " in card, name


def test_metadata_hold_the_results_of_the_evaluation(make_card, run):
    card = ModelCard(make_card()[0])
    stored = json.loads((run / "test" / "metrics.json").read_text())["metrics"]
    by_name = {result.metric_name: result for result in card.data.eval_results}
    weak = by_name["Mean absolute error (EF points), HFrEF"]
    assert weak.metric_value == round(stored["mae_hfref"], 4) == 4.5
    assert weak.metric_args["n"] == 3
    assert weak.metric_args["interval"] == [round(stored[f"mae_hfref_ci_{end}"], 4) for end in ("low", "high")]
    assert (weak.dataset_split, weak.dataset_args) == ("test", {"protocol": "windows", "seed": 42})
    assert by_name["Mean of the three categories' MAE (EF points)"].metric_args["n"] == 30
    assert len(by_name) == 13


def test_a_model_for_vectors_is_not_said_to_take_clips():
    config = EchoMENConfig(vector_size=24, aggregator_hidden_size=4, projection_size=4)
    card = str(create_model_card(config, RunRecord(), repo_id="me/heads"))
    assert "model(embedding=vectors)" in card
    assert "torch.zeros(2, 24)" in card
    assert "none: heads for vectors of 24 numbers" in card
    for said_of_clips in ("clip.avi", "pipeline(", "pipeline_tag", "| Input |", "Pixel mean"):
        assert said_of_clips not in card
    assert "| Input |" in str(create_model_card(EchoMENConfig(), RunRecord(), repo_id="me/heart"))


def test_nothing_is_invented_where_nothing_is_known():
    record = RunRecord()
    card = str(create_model_card(EchoMENConfig(), record, repo_id="me/heart"))
    for line in (
        "| Parameters | unknown |",
        "- Initial weights: unknown",
        "- Stage 1: unknown, or not run.",
        "Unknown: the model has not been evaluated.",
        "Errors by category are unknown.",
        "Errors by patients' age, sex, or any other attribute are unknown.",
        "Versions at evaluation: unknown.",
        "CO2 emissions: not measured.",
        "license_name: research-use-only",
    ):
        assert line in card, line
    assert "## Training data\n\nUnknown.\n" in card
    assert "model-index" not in card
    assert len(record.warnings) == 2
    assert "nan" not in card.lower().replace("finance", "")


@pytest.mark.parametrize(
    ("kind", "declared", "said"),
    [
        ("synthetic", "apache-2.0", "No third-party data went into the weights."),
        ("echonet_dynamic", "other", "The weights inherit the\n[research use agreement of EchoNet-Dynamic]"),
        ("other", "other", "If any of these\ncome from EchoNet-Dynamic"),
    ],
)
def test_licence_follows_the_training_data(kind, declared, said, make_card, run, monkeypatch):
    if kind != "synthetic":
        (run / "data" / "README.txt").unlink()
    if kind == "echonet_dynamic":
        counts = {"train": 20, "validation": 10, "test": 30}
        monkeypatch.setattr("echomen_hf.hub.run_record.ECHONET_DYNAMIC_VIDEOS", counts)
    card, _ = make_card()
    assert ModelCard(card).data.license == declared
    assert said in card
    assert ("**Trained on SYNTHETIC data.**" in card) is (kind == "synthetic")


def test_initial_weights_pass_their_conditions_on(make_card, run):
    path = run / "model" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "run.model": "/home/someone/runs/echonet"}))
    card, _ = make_card()
    assert ModelCard(card).data.license == "other"
    assert "inherit the conditions of the initial weights, `echonet`," in card
    assert "someone" not in card


@pytest.mark.parametrize(
    ("encoder", "declared"),
    [
        (None, "other"),  # nobody knows what it was trained on
        ({"run.model": None}, "apache-2.0"),
        ({"run.model": None, "run.backbone_checkpoint": "kinetics.pth"}, "other"),
        ({"run.model": None, "run.simulation.simulated_videos": 0}, "other"),
    ],
)
def test_weights_pass_no_conditions_on_if_all_their_trainings_were_simulated(
    make_card, run, tmp_path, encoder, declared
):
    path, earlier = run / "model" / "run.json", tmp_path / "encoder"
    simulated = {**json.loads(path.read_text()), "run.simulation.simulated_videos": 24}
    path.write_text(json.dumps({**simulated, "run.model": str(earlier)}))
    earlier.mkdir()
    if encoder is not None:
        (earlier / "run.json").write_text(json.dumps({**simulated, **encoder}))
    card, _ = make_card()
    assert ModelCard(card).data.license == declared
    assert ("No third-party data went into the weights." in card) is (declared == "apache-2.0")


@pytest.mark.parametrize("known", ["cc-by-nc-4.0", None])
def test_weights_of_an_encoder_that_others_have_published(known):
    config = EchoMENConfig(
        encoder_config=tiny_encoder_config("videomae"),
        encoder_name_or_path="them/videomae",
        encoder_license=known,
    )
    settings = {"run.simulation.simulated_videos": 24, "model.encoder_name_or_path": "them/videomae"}
    card = create_model_card(config, RunRecord(settings=settings), repo_id="me/heart")
    assert (card.data.license, card.data["license_name"]) == ("other", known or "that-of-the-encoder")
    text = " ".join(card.text.split())
    assert (
        "| Encoder | videomae with the weights `them/videomae`; mean of its tokens, layer-normalised, 16 numbers"
        in text
    )
    assert "The encoder began with the weights `them/videomae`, which others have published" in text
    assert ("under the licence cc-by-nc-4.0." in text) is (known is not None)
    assert ("the licence, which is not known here" in text) is (known is None)
    assert "No third-party data went into the weights" not in text


def test_the_small_model_is_published_with_its_own_card(tmp_path):
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    folder = tmp_path / "staged"
    record = read_run(SMALL_MODEL_FOLDER)
    assert record.training_data == "synthetic"
    stage_repository(folder, model, processor, record, repo_id="me/heart", source=SMALL_MODEL_FOLDER)
    assert (folder / "README.md").read_text() == (SMALL_MODEL_FOLDER / "README.md").read_text()
    assert (folder / "modeling_echomen.py").is_file()
    assert record.warnings == []


def test_a_model_that_was_trained_further_does_not_get_the_small_ones_card(tmp_path):
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    model.experts[0].bias.data += 1
    folder = tmp_path / "staged"
    stage_repository(folder, model, processor, RunRecord(), repo_id="me/heart", source=SMALL_MODEL_FOLDER)
    card = (folder / "README.md").read_text()
    assert ModelCard(card).data.license == "other"
    assert "EchoMEN small" not in card


def test_measured_emissions_are_reported(make_card, run):
    (run / "model" / "stage2" / "emissions.csv").write_text("duration,emissions\n10,0.0125\n")
    card, _ = make_card()
    assert "CO2 emissions: 12.5 g CO2-equivalent, measured by codecarbon in stage 2." in card
    assert ModelCard(card).data["co2_eq_emissions"]["emissions"] == 12.5


def test_settings_that_an_older_run_did_not_write_down_are_unknown(make_card, run):
    path = run / "model" / "run.json"
    settings = json.loads(path.read_text())
    del settings["run.num_processes"]
    path.write_text(json.dumps(settings))
    (run / "model" / "stage2" / "trainer_state.json").unlink()
    card, warnings = make_card()
    assert "- Processes: unknown\n" in card
    assert "run.json does not state num_processes; the card calls them unknown." in warnings
    assert any("hyperparameters of stage 2 are unknown" in warning for warning in warnings)


def test_own_card_takes_the_place_of_the_generated_one(make_card, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model card"):
        make_card(card=tmp_path / "card.md")


def test_own_card_is_published_as_it_is(make_card, tmp_path):
    own = "---\nlicense: mit\n---\n\n# Written by hand\n"
    (tmp_path / "card.md").write_text(own)
    assert make_card(card=tmp_path / "card.md")[0] == own


@pytest.mark.parametrize("home", ["/home/smith_john", "~/smith_john", "patients/smith_john", r"C:\Users\smith_john"])
def test_published_files_hold_names_of_folders_only(make_card, run, tmp_path, home):
    settings = run / "model" / "run.json"
    paths = {"run.model": f"{home}/encoder", "run.backbone_checkpoint": f"{home}/kinetics.pth"}
    paths["run.other"] = None if home.startswith("patients") else f"{home}/other"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **paths}))
    metrics = run / "test" / "metrics.json"
    document = json.loads(metrics.read_text())
    nested = {"tried": [] if home.startswith("patients") else [{"folder": f"{home}/tried"}]}
    metrics.write_text(json.dumps({**document, "data_dir": f"{home}/data", "extra": nested}))
    make_card()
    staged = tmp_path / "staged"
    for path in staged.rglob("*"):
        if path.suffix in (".json", ".md"):
            assert "smith_john" not in path.read_text(), path
            assert str(run.parent) not in path.read_text(), path
    published = json.loads((staged / "run.json").read_text())
    assert (published["run.model"], published["run.backbone_checkpoint"]) == ("encoder", "kinetics.pth")
    assert published["run.eval_protocol"] == "center"
    published = json.loads((staged / "evaluation" / "metrics.json").read_text())
    assert (published["model"], published["data_dir"]) == ("model", "data")
    assert published["metrics"] == document["metrics"]
