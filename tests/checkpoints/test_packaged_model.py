"""The small model that comes with the package: what its card says is measured on its weights, and holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel, AutoVideoProcessor

import echomen_hf
from echomen_hf import EchoMENModel, Predictor
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER, SMALL_MODEL_NOTICE
from echomen_hf.evaluation.motion_evidence import INVARIANCES, motion_evidence
from echomen_hf.evaluation.simulation_examination import (
    PROFILE_TITLES,
    accuracy_section,
    coverage_section,
    examine_on_simulation,
    experts_section,
    motion_section,
)
from echomen_hf.inference.video_prediction import predict_video
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.runs.files import weights_checksum
from echomen_hf.simulation import SimulatedFrames, SimulatedVideos


DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def predictor():
    return Predictor(device="cpu")


@pytest.fixture(scope="module")
def examination():
    return json.loads((SMALL_MODEL_FOLDER / "examination.json").read_text())


def test_it_is_small_and_reads_echonets_size():
    size = sum(path.stat().st_size for path in SMALL_MODEL_FOLDER.iterdir())
    assert size < 8e6
    processor = AutoVideoProcessor.from_pretrained(SMALL_MODEL_FOLDER)
    assert (processor.num_frames, processor.crop_size["height"], processor.crop_size["width"]) == (32, 112, 112)


def test_its_folder_holds_no_code():
    assert sorted(path.name for path in SMALL_MODEL_FOLDER.iterdir()) == [
        "README.md",
        "config.json",
        "examination.json",
        "model.safetensors",
        "run.json",
        "video_preprocessor_config.json",
    ]
    for name in ("config.json", "video_preprocessor_config.json"):
        assert "auto_map" not in json.loads((SMALL_MODEL_FOLDER / name).read_text())


def test_it_loads_by_name_by_folder_and_by_auto_class():
    model = echomen_hf.load_small()
    assert isinstance(model, EchoMENModel)
    assert not model.training
    assert model.config.prediction_head == "experts"
    for other in (EchoMENModel.from_pretrained(SMALL_MODEL_FOLDER), AutoModel.from_pretrained(SMALL_MODEL_FOLDER)):
        assert all((value == other.state_dict()[name]).all() for name, value in model.state_dict().items())


def test_the_card_shows_what_was_measured_on_these_weights(examination):
    assert examination["model_sha256"] == weights_checksum(SMALL_MODEL_FOLDER)
    assert (
        examination["calibration"]
        == json.loads((SMALL_MODEL_FOLDER / "config.json").read_text())["interval_calibration"]
    )
    card = (SMALL_MODEL_FOLDER / "README.md").read_text()
    for section in (
        accuracy_section(examination),
        experts_section(examination),
        coverage_section(examination),
        motion_section(examination),
    ):
        assert section in card
    assert "simulated" in card.lower()


def test_the_page_on_public_clips_is_about_these_weights():
    page = DOCS / "small_model" / "public_clips.md"
    assert f"begins with {weights_checksum(SMALL_MODEL_FOLDER)[:12]}." in page.read_text()


@pytest.mark.parametrize(("name", "good_in_training"), [("quality", 0.98), ("quality_with_outline", 0.97)])
def test_the_page_shows_which_recordings_these_weights_call_good(name, good_in_training):
    document = json.loads((DOCS / "small_model" / f"{name}.json").read_text())
    assert document["model_sha256"] == weights_checksum(SMALL_MODEL_FOLDER)
    assert document["settings"]["outline"] == ("outline" in name)
    page = (DOCS / "small_model.md").read_text()
    good = {}
    for one in document["measured"]:
        number = sum(one["qualities"].values())
        shares = [one["qualities"].get(name, 0) / number for name in ("good", "doubtful", "unusable", "refused")]
        good[one["shown"]] = shares[0]
        assert " | ".join([f"| {one['shown']}", str(number), *(f"{share:.1%}" for share in shares)]) in page
    hearts = {title: good.pop(title) for title in PROFILE_TITLES.values()}
    assert hearts["machines as in training"] >= good_in_training
    assert min(hearts.values()) >= 0.95
    assert set(good.values()) == {0.0}


def test_what_was_measured_is_what_is_asked_of_it(examination):
    assert examination["settings"]["num_videos"] >= 2400
    assert examination["held_out_ratio"] <= 1.3
    assert min(examination["slope"].values()) > 0.93
    for category in ("hfref", "hfmref", "hfpef"):
        for way in PROFILE_TITLES:
            measured = examination["intervals"][way][category]
            assert 0.87 < measured["coverage"] < 0.93
            assert measured["n"] >= 600
    for way in PROFILE_TITLES:
        assert abs(examination["accuracy"][way]["bias_hfref"]) < 2
    assert examination["accuracy"]["wide"]["balanced_mae"] < 3.8
    assert examination["accuracy"]["held_out_vendor"]["balanced_mae"] < 4.6
    assert examination["motion"]["still"]["p90"] < 20
    for name in INVARIANCES:
        assert examination["motion"][name]["mean"] < 3, name


def test_it_reads_motion(predictor):
    videos = SimulatedVideos(24, seed=77, distribution="categories", seconds=(1.4, 2.0))
    source = SimulatedFrames("wide")
    clips = [EchoVideo(source.read(row), row["fps"], row["file_name"]) for row in videos]
    found = motion_evidence(
        lambda video: (
            predict_video(predictor.model, predictor.processor, video, engine=predictor.engine).ejection_fraction
        ),
        clips,
    )
    assert found["still"].mean() < 16
    for name in INVARIANCES:
        assert np.abs(found[name] - found["unchanged"]).mean() < 3, name
    assert np.corrcoef(found["unchanged"], videos["ejection_fraction"])[0, 1] > 0.7


@pytest.mark.slow
def test_a_machine_never_seen_is_read_almost_as_well():
    model = echomen_hf.load_small()
    processor = AutoVideoProcessor.from_pretrained(SMALL_MODEL_FOLDER)
    found = examine_on_simulation(
        model, processor, num_videos=600, num_motion_videos=60, seed=5, bootstrap_samples=0, progress=False
    )
    assert found["held_out_ratio"] <= 1.3
    assert found["motion"]["still"]["mean"] < 16
    for name in INVARIANCES:
        assert found["motion"][name]["mean"] < 3, name


def test_a_predictor_without_a_model_warns_of_what_it_takes(monkeypatch):
    heard: list[str] = []
    monkeypatch.setattr("echomen_hf.inference.predictor.logger.warning", heard.append)
    Predictor(SMALL_MODEL_FOLDER, device="cpu")
    assert heard == []
    Predictor(None, device="cpu")
    assert heard == [SMALL_MODEL_NOTICE]


def test_a_real_loop_gets_a_plausible_estimate_and_a_wide_interval(predictor):
    examples = pytest.importorskip("pydicom.examples")
    prediction = predictor(examples.get_path("ybr_color"))
    assert prediction.num_clips == 1  # 30 frames are fewer than a clip
    assert 15 < prediction.ejection_fraction < 90
    low, high = prediction.interval
    assert low <= prediction.ejection_fraction <= high
    assert high - low > 15
