import json

import numpy as np
import pytest
import torch
from transformers import pipeline

from echomen_hf import EjectionFractionPipeline, Predictor, read_video
from echomen_hf.heart_failure_category_echomen import category_probabilities


@pytest.fixture
def saved(tiny_model, tiny_processor, tmp_path):
    generator = torch.Generator().manual_seed(5)
    for part in (tiny_model.experts, tiny_model.aggregator):
        for parameter in part.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def avi(echonet_dir):
    return str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])


@pytest.fixture
def run(saved):
    return pipeline("ejection-fraction", model=saved)


def test_agrees_with_the_predictor(run, saved, avi):
    assert isinstance(run, EjectionFractionPipeline)
    result = run(avi)
    prediction = Predictor(saved)(avi)
    assert result["ejection_fraction"] == pytest.approx(prediction.ejection_fraction, rel=1e-6)
    assert result["category"] == prediction.category
    np.testing.assert_allclose(result["experts"], prediction.expert_predictions, rtol=1e-6)
    np.testing.assert_allclose(result["weights"], prediction.expert_weights, rtol=1e-6)
    found = [clip["ejection_fraction"] for clip in result["clips"]]
    np.testing.assert_allclose(found, prediction.clip_ejection_fractions, rtol=1e-6)
    assert sum(result["category_probabilities"].values()) == pytest.approx(1)
    json.dumps(result)


def test_forms_of_input(run, avi):
    video = read_video(avi)
    expected = run(avi)["ejection_fraction"]
    with open(avi, "rb") as file:
        assert run(file.read())["ejection_fraction"] == expected
    assert run(video)["ejection_fraction"] == expected
    assert run(video.frames, fps=video.fps)["ejection_fraction"] == expected
    assert run(torch.from_numpy(video.frames), fps=video.fps)["ejection_fraction"] == expected


def test_lists_and_batches(run, echonet_dir):
    paths = [str(path) for path in sorted((echonet_dir / "Videos").glob("*.avi"))[:3]]
    one_by_one = [run(path)["ejection_fraction"] for path in paths]
    for batch_size in (1, 2, 5):
        together = [result["ejection_fraction"] for result in run(paths, batch_size=batch_size)]
        assert together == pytest.approx(one_by_one, rel=1e-6)


def test_protocol_of_a_call_and_of_the_constructor(run, saved, avi):
    assert len(run(avi, protocol="center")["clips"]) == 1
    assert len(run(avi, protocol=3)["clips"]) == 3
    assert len(pipeline("ejection-fraction", model=saved, protocol="center")(avi)["clips"]) == 1
    starts = [clip["start"] for clip in run(avi, protocol="3")["clips"]]
    assert starts == sorted(starts)
    assert starts[0] == 0


def test_standard_deviation_is_that_of_clips_and_experts(run, avi):
    result = run(avi, protocol="center")
    experts, weights = np.array(result["experts"]), np.array(result["weights"])
    expected = (weights * (experts - (weights * experts).sum()) ** 2).sum() ** 0.5
    assert result["standard_deviation"] == pytest.approx(expected, rel=1e-5)
    spread = np.std([clip["ejection_fraction"] for clip in run(avi)["clips"]])
    assert run(avi)["standard_deviation"] >= spread


def test_dicom(run):
    examples = pytest.importorskip("pydicom.examples")
    assert np.isfinite(run(str(examples.get_path("ybr_color")))["ejection_fraction"])


def test_save_and_load(run, avi, tmp_path):
    run.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "video_preprocessor_config.json").is_file()
    assert (tmp_path / "saved" / "pipeline_echomen.py").is_file()
    # transformers asks for trust wherever a folder brings a pipeline of its own, whatever is installed.
    again = pipeline("ejection-fraction", model=str(tmp_path / "saved"), trust_remote_code=True)
    assert again(avi)["ejection_fraction"] == run(avi)["ejection_fraction"]


def test_generic_video_classification(saved, avi, run):
    ((result,)) = pipeline("video-classification", model=saved)(avi)
    assert result["label"] == "ejection_fraction"
    assert result["score"] == pytest.approx(run(avi, protocol="center")["ejection_fraction"], rel=1e-6)


def test_misspelt_option_and_still_image(run, avi):
    with pytest.raises(TypeError, match="Unknown arguments of the ejection-fraction pipeline: protocl"):
        run(avi, protocl="all")
    with pytest.raises(ValueError, match="has one frame"):
        run(np.zeros((1, 32, 32), np.uint8))


class TestCategoryProbabilities:
    def test_hand_worked(self):
        # One standard deviation below 40 and above 50: 15.87 % each.
        found = category_probabilities(45.0, 5.0)
        assert found["hfref"] == pytest.approx(0.158655, abs=1e-6)
        assert found["hfmref"] == pytest.approx(0.682689, abs=1e-6)
        assert found["hfpef"] == pytest.approx(0.158655, abs=1e-6)

    def test_no_spread_and_ends(self):
        assert category_probabilities(40.0, 0.0) == {"hfref": 0.0, "hfmref": 1.0, "hfpef": 0.0}
        assert sum(category_probabilities(99.0, 50.0).values()) == pytest.approx(1)
        with pytest.raises(ValueError, match="standard_deviation"):
            category_probabilities(50.0, -1.0)
