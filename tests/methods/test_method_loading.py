import json

import pytest

from echomen_hf import EchoMENModel
from echomen_hf.methods import get_method, load_method_checkpoint
from helpers.small_networks import small_model


def test_model_of_echomen(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    model, _ = load_method_checkpoint(tmp_path)
    assert type(model) is EchoMENModel
    assert not model.training


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder .*nothing"):
        load_method_checkpoint(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load_method_checkpoint(tmp_path)


def test_model_that_no_method_makes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="type 'bert', which no method makes"):
        load_method_checkpoint(tmp_path)


def test_weights_that_do_not_fit(tmp_path):
    small_model("echocotr").save_pretrained(tmp_path)
    get_method("echocotr").processor_class.for_model(small_model("echocotr").config).save_pretrained(tmp_path)
    load_method_checkpoint(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "depths": [1, 1, 2]}))
    with pytest.raises(ValueError, match=r"do not fit its config\.json"):
        load_method_checkpoint(tmp_path)
