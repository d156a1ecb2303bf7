import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from echomen_hf import EchoMENConfig
from echomen_hf.model import configuration_echomen


def test_defaults_are_the_paper():
    config = EchoMENConfig()
    assert (config.depths, config.hidden_sizes) == ([2, 2, 2, 2], [64, 128, 256, 512])
    assert (config.num_frames, config.sampling_period, config.image_size, config.num_experts) == (32, 2, 112, 3)
    assert (config.embedding_size, config.stem_mid_channels, config.projection_hidden_size) == (512, 45, 512)
    assert config.problem_type == "regression"
    assert config.num_labels == 1
    assert config.id2label == {0: "ejection_fraction"}


def test_round_trip_through_json_is_equal(tmp_path):
    config = EchoMENConfig(depths=(1, 2), hidden_sizes=(8, 16), expert_top_k=2, reference_fps=25, num_experts=5)
    config.save_pretrained(tmp_path)
    assert EchoMENConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()
    assert AutoConfig.from_pretrained(tmp_path).to_json_string() == config.to_json_string()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 1)}, "same length"),
        ({"depths": (), "hidden_sizes": ()}, "same length"),
        ({"depths": (0, 1, 1, 1)}, "at least one block"),
        ({"num_experts": 0}, "num_experts"),
        ({"adapter_size": 0}, "adapter_size"),
        ({"expert_top_k": 4}, "between 1 and `num_experts`"),
        ({"expert_top_k": 0}, "between 1 and `num_experts`"),
        ({"num_channels": 2}, "1 .grayscale. or 3"),
        ({"num_frames": 0}, "num_frames"),
        ({"num_frames": "many"}, "num_frames"),
        ({"prediction_head": "both"}, "prediction_head"),
        ({"expert_aggregation": "median"}, "expert_aggregation"),
        ({"reference_fps": 0}, "reference_fps"),
        ({"num_labels": 3}, "num_labels"),
    ],
)
def test_values_that_cannot_work_are_refused(arguments, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        EchoMENConfig(**arguments)


def test_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="num_expert'.*Known fields: .*num_experts"):
        EchoMENConfig(num_expert=5)


def test_arguments_of_generation_are_not_taken_for_fields():
    with pytest.raises(TypeError, match="top_k"):
        EchoMENConfig(top_k=2)


def test_what_transformers_adds_is_accepted(tmp_path):
    added = {
        "attn_implementation": "eager",
        "auto_map": {"AutoModel": "modeling_echomen.EchoMENModel"},
        "custom_pipelines": {},
        "name_or_path": "somewhere",
        "output_attentions": False,
        "torch_dtype": "float32",
        "use_cache": False,
        "_commit_hash": None,
    }
    assert EchoMENConfig(**added).auto_map == added["auto_map"]
    EchoMENConfig(num_experts=2).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **added}))
    assert EchoMENConfig.from_pretrained(tmp_path).auto_map == added["auto_map"]


def test_stored_field_of_a_later_version_is_left_out(tmp_path):
    EchoMENConfig(num_experts=2).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "field_of_tomorrow": 1}))
    config = EchoMENConfig.from_pretrained(tmp_path)
    assert config.num_experts == 2
    assert not hasattr(config, "field_of_tomorrow")


def test_field_of_a_newer_version_is_left_out_with_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(configuration_echomen.logger, "warning", said.append)
    stored = EchoMENConfig(num_experts=2).to_dict() | {"encoder_of_tomorrow": "deep"}
    config = EchoMENConfig.from_dict(stored)
    assert config.num_experts == 2 and not hasattr(config, "encoder_of_tomorrow")
    assert "['encoder_of_tomorrow']" in said[0] and "newer version of echomen_hf" in said[0]
