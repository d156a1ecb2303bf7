import json
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from echomen_hf import EjectionFractionPipeline, Predictor, read_video
from echomen_hf.model.heart_failure_category_echomen import category_probabilities


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
        assert run(file)["ejection_fraction"] == expected
        file.seek(0)
        assert run(file.read())["ejection_fraction"] == expected
    for source in (Path(avi), {"path": avi, "bytes": None}, video):
        assert run(source)["ejection_fraction"] == expected
    rgb = np.repeat(video.frames[..., None], 3, axis=-1)
    for frames in (video.frames, torch.from_numpy(video.frames), video.frames[:, None].astype(np.float32), rgb):
        assert run(frames, fps=video.fps)["ejection_fraction"] == expected
    assert [result["ejection_fraction"] for result in run([avi, video.frames], fps=video.fps)] == [expected] * 2


class TestBatches:
    @pytest.fixture
    def paths(self, echonet_dir):
        return [str(path) for path in sorted((echonet_dir / "Videos").glob("*.avi"))[:3]]

    @pytest.fixture
    def batch_sizes(self, run):
        """Sizes of the batches that the model has been given."""
        sizes = []
        run.model.register_forward_pre_hook(
            lambda model, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
        )
        return sizes

    @pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
    def test_lists(self, run, paths, batch_size, batch_sizes):
        one_by_one = [run(path) for path in paths]
        num_clips = sum(len(result["clips"]) for result in one_by_one)
        batch_sizes.clear()
        together = run(paths, batch_size=batch_size)
        assert isinstance(together, list)
        for found, expected in zip(together, one_by_one, strict=True):
            assert found["ejection_fraction"] == pytest.approx(expected["ejection_fraction"], rel=1e-6)
            assert found["weights"] == pytest.approx(expected["weights"], rel=1e-5)
            assert [clip["start"] for clip in found["clips"]] == [clip["start"] for clip in expected["clips"]]
        # Batches are filled with clips of whatever video; the last one takes what is left.
        full, rest = divmod(num_clips, batch_size)
        assert batch_sizes == [batch_size] * full + [rest] * (rest > 0)

    def test_one_video(self, run, saved, avi, batch_sizes):
        num_clips = len(run(avi, protocol="all")["clips"])
        batch_sizes.clear()
        run(avi, protocol="all", batch_size=4)
        assert batch_sizes[0] == 4
        assert sum(batch_sizes) == num_clips > 4

    def test_generator_is_read_as_results_are_asked_for(self, run, paths):
        read = []

        def videos():
            for path in paths:
                read.append(path)
                yield path

        results = iter(run(videos(), protocol="center"))
        first = next(results)
        assert len(read) < len(paths)
        found = [result["ejection_fraction"] for result in [first, *results]]
        assert found == [run(path, protocol="center")["ejection_fraction"] for path in paths]

    def test_data_set(self, run, paths):
        rows = datasets.Dataset.from_dict({"video": paths, "name": ["a", "b", "c"]})
        rows = rows.cast_column("video", datasets.Video(decode=False))
        found = list(run(KeyDataset(rows, "video"), batch_size=2))
        expected = [run(path)["ejection_fraction"] for path in paths]
        assert [result["ejection_fraction"] for result in found] == pytest.approx(expected, rel=1e-6)

    def test_worker_process(self, run, paths):
        expected = [run(path)["ejection_fraction"] for path in paths]
        found = run(paths, num_workers=2)
        assert [result["ejection_fraction"] for result in found] == expected

    def test_tuple_and_no_video(self, run, paths):
        assert len(run(tuple(paths))) == 3
        assert run([]) == []

    def test_experts_that_were_not_consulted(self, run, paths):
        run.model.config.expert_top_k = 1
        alone, together = run(paths[0]), run(paths, batch_size=4)[0]
        assert np.isnan(alone["experts"]).any()
        np.testing.assert_allclose(together["experts"], alone["experts"], rtol=1e-6)
        assert sum(alone["category_probabilities"].values()) == pytest.approx(1)


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
    # The model itself, saved elsewhere, does not claim to have the code of a pipeline beside it.
    run.model.save_pretrained(tmp_path / "model")
    assert "custom_pipelines" not in json.loads((tmp_path / "model" / "config.json").read_text())
    AutoModel.from_pretrained(tmp_path / "model")


REMOTE = """
import json, sys
from transformers import pipeline
folder, video, dicom = sys.argv[1:]
run = pipeline("ejection-fraction", model=folder, trust_remote_code=True)
assert type(run).__module__.startswith("transformers_modules"), type(run)
generic = pipeline("video-classification", model=folder, trust_remote_code=True)
results = run([video, dicom], batch_size=3)
print("RESULT" + json.dumps([results, generic(video)]))
"""


def test_saved_pipeline_runs_where_the_package_is_not_installed(run, avi, tmp_path, run_without_package):
    examples = pytest.importorskip("pydicom.examples")
    dicom = str(examples.get_path("ybr_color"))
    run.save_pretrained(tmp_path / "saved")
    child = run_without_package(REMOTE, tmp_path / "saved", avi, dicom)
    results, generic = json.loads(child.stdout.split("RESULT", 1)[1].splitlines()[0])
    for found, source in zip(results, (avi, dicom), strict=True):
        expected = run(source)
        assert found.keys() == expected.keys()
        assert found["ejection_fraction"] == pytest.approx(expected["ejection_fraction"], rel=1e-6)
        assert found["category_probabilities"] == pytest.approx(expected["category_probabilities"], rel=1e-4)
    assert generic[0]["score"] == pytest.approx(run(avi, protocol="center")["ejection_fraction"], rel=1e-6)


def test_colour_is_warned_of(run, avi):
    video = read_video(avi)
    rgb = np.repeat(video.frames[..., None], 3, axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(rgb, fps=video.fps)
    rgb[5:20, 40:70, 40:60] = (200, 30, 20)
    for frames in (rgb, np.moveaxis(rgb, -1, 1)):
        with pytest.warns(UserWarning, match="of the picture is coloured, as in colour Doppler"):
            result = run(frames, fps=video.fps)
        assert np.isfinite(result["ejection_fraction"])


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
