"""The outliner that comes with the package: what its card says is measured on its weights, and holds."""

import json

import numpy as np
import pytest
from transformers import AutoModel

from echomen_hf.checkpoints import OUTLINE_FOLDER
from echomen_hf.data import polygon_mask
from echomen_hf.evaluation.outline_evaluation import dice, evaluate_outlines_on_simulation, outline_section
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.outline import LeftVentricleOutliner, load_outliner, shows_other_view
from echomen_hf.runs.files import weights_checksum
from echomen_hf.simulation import simulate_echo
from echomen_hf.simulation.other_recordings import simulate_other_recording
from helpers.documents import read_page


@pytest.fixture(scope="module")
def outliner():
    return load_outliner()


def test_its_folder_is_small_and_holds_no_code():
    assert sum(path.stat().st_size for path in OUTLINE_FOLDER.iterdir()) < 4e6
    assert sorted(path.name for path in OUTLINE_FOLDER.iterdir()) == [
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "training_log.json",
    ]
    assert "auto_map" not in json.loads((OUTLINE_FOLDER / "config.json").read_text())


def test_it_loads_by_auto_class(outliner):
    other = AutoModel.from_pretrained(OUTLINE_FOLDER)
    assert type(other) is LeftVentricleOutliner
    assert all((value == other.state_dict()[name]).all() for name, value in outliner.state_dict().items())
    assert not outliner.training


def test_card_and_page_show_what_was_measured_on_these_weights():
    evaluation = json.loads((OUTLINE_FOLDER / "evaluation.json").read_text())
    assert evaluation["model_sha256"] == weights_checksum(OUTLINE_FOLDER)
    section = outline_section(evaluation)
    assert section in (OUTLINE_FOLDER / "README.md").read_text()
    assert section in read_page("docs/outline.md")


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_it_outlines_hearts_on_either_side(outliner, is_mirrored):
    found = []
    for seed in range(3):
        echo = simulate_echo(700 + seed, num_frames=40, profile="wide")
        frames = echo.frames[:, :, ::-1].copy() if is_mirrored else echo.frames
        masks = outliner.predict_masks(frames, echo.fps)
        assert masks.any((1, 2)).all()
        truth = np.stack([polygon_mask(outline, 112, 112) for outline in echo.outlines])
        found.append(dice(masks, truth[:, :, ::-1] if is_mirrored else truth).mean())
    assert np.mean(found) > 0.9


def test_a_picture_without_a_heart_has_no_outline(outliner):
    for frames in (np.zeros((10, 112, 112)), np.random.default_rng(0).integers(0, 255, (10, 200, 300))):
        assert not outliner.predict_masks(frames.astype(np.uint8), 50.0).any()


@pytest.mark.parametrize("kind", ["short_axis", "long_axis", "lung", None])
def test_a_few_frames_tell_another_view(outliner, kind):
    for seed in range(4):
        profile = ("wide", "held_out_vendor")[seed % 2]
        if kind is None:
            frames = simulate_echo(800 + seed, num_frames=60, profile=profile).frames
        else:
            frames = simulate_other_recording(kind, 800 + seed, 60, 50.0, 112, profile)
        assert shows_other_view(EchoVideo(frames, 50.0, "clip"), outliner) == (kind is not None)


@pytest.mark.slow
def test_the_targets_hold_on_further_hearts(outliner):
    found = evaluate_outlines_on_simulation(outliner, num_videos=60, num_others=5, seed=5, progress=False)
    values = {name: result["dice"]["all_frames"]["mean"] for name, result in found["machines"].items()}
    assert values["wide"] > 0.94
    assert values["held_out_vendor"] > 0.92
    assert all(result["share_outlined"] > 0.99 for result in found["machines"].values())
