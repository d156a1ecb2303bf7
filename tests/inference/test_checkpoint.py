import json

import pytest

from echomen_hf.inference import load_checkpoint


@pytest.fixture
def saved(tiny_model, tiny_processor, tmp_path):
    tiny_model.train().save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_model_and_processor(saved):
    model, processor = load_checkpoint(saved)
    assert not model.training
    assert processor.num_frames == 8


@pytest.mark.parametrize("name", ["runs/none/model", "/nowhere", "./none", "none"])
def test_folder_that_does_not_exist(name):
    with pytest.raises(FileNotFoundError, match="There is no model folder"):
        load_checkpoint(name)


def test_folder_without_configuration(tmp_path):
    with pytest.raises(ValueError, match="config.json is missing"):
        load_checkpoint(tmp_path)


def test_broken_configuration(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not a JSON object"):
        load_checkpoint(saved)


def test_another_kind_of_model(saved):
    change_config(saved, model_type="videomae")
    with pytest.raises(ValueError, match="holds a model of type 'videomae' and not 'echomen'"):
        load_checkpoint(saved)


def test_configuration_of_another_model(saved):
    change_config(saved, hidden_sizes=[4, 16])
    with pytest.raises(ValueError, match="do not fit its config.json"):
        load_checkpoint(saved)


def test_missing_weights(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(OSError, match="no file named model.safetensors"):
        load_checkpoint(saved)
