import json

import pytest

from echomen_hf.runs.run_folder import claim_run, describe_initial_weights, weights_are_simulated


@pytest.fixture
def model(tmp_path):
    """A model trained on simulated videos, in a folder that has a patient's name."""
    folder = tmp_path / "DOE_JOHN" / "encoder"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "run.json").write_text(json.dumps({"run.model": None, "run.simulation.simulated_videos": 24}))
    return folder


def settings(model, **others):
    described = {f"run.{name}": value for name, value in describe_initial_weights(model).items()}
    return {**described, "run.simulation.simulated_videos": 24, **others}


def test_weights_are_known_by_name_and_checksum(model, tmp_path):
    (tmp_path / "kinetics.pth").write_bytes(b"weights")
    found, backbone = describe_initial_weights(model), describe_initial_weights(None, tmp_path / "kinetics.pth")
    assert (found["model"], found["model_is_simulated"]) == ("encoder", True)
    assert backbone["backbone_checkpoint"] == "kinetics.pth"
    assert found["model_sha256"] == backbone["backbone_sha256"]
    encoder = describe_initial_weights(encoder=tmp_path / "DOE_JOHN" / "encoder", encoder_sha256="f00d")
    assert (encoder["encoder"], encoder["encoder_sha256"]) == ("encoder", "f00d")
    assert "DOE_JOHN" not in str((found, encoder))
    assert describe_initial_weights("me/echomen")["model"] == "me/echomen"


def test_a_run_goes_on_where_its_model_was_moved_to_and_not_with_other_weights(model, tmp_path):
    claim_run(tmp_path / "run", settings(model), {})
    moved = model.rename(tmp_path / "encoder")
    claim_run(tmp_path / "run", settings(moved), {})
    (moved / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"run\.model_sha256 was .* and is"):
        claim_run(tmp_path / "run", settings(moved), {})


def test_a_run_with_paths_of_an_earlier_version_goes_on(model, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    before = {"run.model": str(model), "run.backbone_checkpoint": None, "run.simulation.simulated_videos": 24}
    (run / "run.json").write_text(json.dumps(before))
    claim_run(run, settings(model), {})
    with pytest.raises(ValueError, match=r"run\.model was .* and is 'other'"):
        claim_run(run, settings(model.rename(tmp_path / "other")), {})


def test_simulation_is_remembered_without_the_path(model):
    assert weights_are_simulated(settings(model))
    assert not weights_are_simulated(settings("me/echomen"))
    # As earlier versions wrote it.
    assert weights_are_simulated({"run.model": str(model), "run.simulation.simulated_videos": 24})
    assert not weights_are_simulated({"run.model": str(model / "gone"), "run.simulation.simulated_videos": 24})
