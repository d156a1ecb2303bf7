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
    with pytest.raises(ValueError, match="no weights .model.safetensors is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize("depths", [[1, 2], [2, 1]])
def test_weights_that_the_file_lacks_are_not_made_up(saved, depths):
    change_config(saved, depths=depths)
    with pytest.raises(ValueError, match="entries are missing or unknown, such as encoder"):
        load_checkpoint(saved)


def test_damaged_weights(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved)


def test_video_processor_of_another_model(saved):
    path = saved / "video_preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "crop_size": {"height": 40, "width": 40}}))
    with pytest.raises(ValueError, match=r"makes clips of .* \(8, 1, 40, 40\), but the model was trained on"):
        load_checkpoint(saved)
