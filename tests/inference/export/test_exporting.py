import hashlib
import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from transformers import pipeline

from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENVideoProcessor, Predictor, load_echonet_dynamic
from echomen_hf.inference import load_checkpoint, predict_split
from echomen_hf.inference.engines.optional_packages import MissingExtraError, import_extra
from echomen_hf.inference.export import measured_error as export_error
from echomen_hf.inference.export.exporting import ExportRefusedError, export_model, load_export
from echomen_hf.inference.export.measured_error import EFErrors, ErrorBound, spread_over_ef
from echomen_hf.inference.windows import windows_of_model
from helpers.exportable_model import make_exportable_model


needs_openvino = pytest.mark.skipif(not all(map(find_spec, ("openvino", "nncf"))), reason="extra openvino")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = make_exportable_model()
    model.save_pretrained(folder)
    EchoMENVideoProcessor.for_model(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "fp32"
    export_model(checkpoint, folder, seed=3)
    return folder


class TestErrorBound:
    def test_numbers_of_the_message(self):
        errors = EFErrors(10, 30, 0.2, 0.7, mae_reference=3.23, mae=3.87, mae_rise=0.64)
        assert ErrorBound(0.64, 0.7).violations(errors) == []
        (rise,) = ErrorBound(0.1, 0.7).violations(errors)
        assert rise == "the mean absolute error rises by 0.6400 EF points, from 3.2300 to 3.8700 (allowed: 0.1)"
        rise, change = ErrorBound(0.1, 0.5).violations(errors)
        assert "changes by 0.7000 points, 0.2000 on average (allowed: 0.5)" in change

    def test_nan_is_too_large(self):
        nan = float("nan")
        assert len(ErrorBound(0.1, 1).violations(EFErrors(1, 1, nan, nan, 3.0, nan, nan))) == 2

    def test_error_may_fall(self):
        assert ErrorBound(0, 1).violations(EFErrors(1, 1, 0.1, 0.1, 3.0, 2.9, -0.1)) == []

    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
    def test_no_bound(self, value):
        with pytest.raises(ValueError, match="max_mae_rise"):
            ErrorBound(value, 1)
        with pytest.raises(ValueError, match="max_change"):
            ErrorBound(0.1, value)


def test_videos_spread_over_all_ejection_fractions():
    videos = [{"ejection_fraction": ef} for ef in (60, 20, 50, 40, 30)]
    assert spread_over_ef(videos, None) == [1, 4, 3, 2, 0]
    assert spread_over_ef(videos, 3) == [1, 3, 0]
    assert spread_over_ef(videos, 9) == [1, 4, 3, 2, 0]


@pytest.mark.parametrize("export_format", ["onnx", "openvino"])
def test_model_of_vectors_has_no_encoder_to_export(tmp_path, export_format):
    if find_spec(export_format) is None:
        pytest.skip(f"extra {export_format}")
    config = EchoMENConfig(vector_size=6)
    EchoMENModel(config).save_pretrained(tmp_path / "model")
    EchoMENVideoProcessor.for_model(config).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="has no encoder: it was trained on vectors.*`--model` or `--encoder`"):
        export_model(tmp_path / "model", tmp_path / "out", export_format=export_format)
    assert not (tmp_path / "out").exists()


def test_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'echomen-hf\[openvino\]'") as caught:
        import_extra("no_such_package.part", "openvino")
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("export_format", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_export_without_the_extra(checkpoint, tmp_path, monkeypatch, export_format, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"package {package}: pip install 'echomen-hf\[{export_format}\]'"):
        export_model(checkpoint, tmp_path / "out", export_format=export_format)
    assert list(tmp_path.iterdir()) == []


class TestRefusedOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"export_format": "tflite"}, "no format 'tflite'; choose one of openvino, onnx"),
            ({"export_format": "onnx", "precision": "int8"}, "'onnx' has no precision 'int8', only fp32"),
            ({"precision": "int8"}, "int8 needs `data_dir`"),
            ({"max_videos": 1}, "max_videos=1"),
            ({"calibration_clips": 0}, "calibration_clips=0"),
            ({"max_change": -1.0}, "max_change"),
        ],
    )
    def test_options(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            export_model(tmp_path / "no-model", tmp_path / "out", **options)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("split", ["TEST", "test", "holdout"])
    @needs_openvino
    def test_test_split(self, checkpoint, echonet_dir, tmp_path, split):
        with pytest.raises(ValueError, match="test split is for the final evaluation only"):
            export_model(checkpoint, tmp_path / "out", data_dir=echonet_dir, split=split)
        assert list(tmp_path.iterdir()) == []

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("years of work")
        with pytest.raises(FileExistsError, match="holds other files"):
            export_model("model", tmp_path)
        (tmp_path / "export.json").write_text("{}")
        with pytest.raises(FileExistsError, match="holds other files"):
            export_model("model", tmp_path)
        with pytest.raises(FileExistsError, match="is a file"):
            export_model("model", tmp_path / "thesis.tex")


@needs_openvino
class TestOpenVINO:
    def test_files_are_data_only(self, exported):
        assert {path.name for path in exported.iterdir()} == {
            "config.json",
            "encoder.bin",
            "encoder.xml",
            "export.json",
            "heads.safetensors",
            "video_preprocessor_config.json",
        }
        assert [path.name for path in exported.parent.iterdir()] == ["fp32"]
        assert "auto_map" not in json.loads((exported / "config.json").read_text())

    def test_record_without_data(self, exported, checkpoint):
        record = json.loads((exported / "export.json").read_text())
        assert record["measured_on"] == {"clips_of_noise": True, "seed": 3}
        assert record["error"]["mae"] is None
        assert record["error"]["num_clips"] == export_error.NOISE_CLIPS
        assert record["error"]["mean_change"] <= record["error"]["max_change"] < 1e-3
        assert record["bound"] == {"max_change": 0.01, "max_mae_rise": None}
        weights = (checkpoint / "model.safetensors").read_bytes()
        assert record["source"]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert {"openvino", "torch", "python"} <= record["versions"].keys()

    def test_loaded_model_estimates_as_the_original(self, exported, checkpoint, echonet_dir):
        model, processor, engine = load_export(exported, num_threads=1)
        assert (engine.name, engine.precision) == ("openvino", "fp32")
        video = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        expected = Predictor(checkpoint)(video)
        # With the engine beside the model, with the engine in the model, and as a folder.
        clips = processor(video, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            inside, beside = model(pixel_values=clips), model(embedding=engine(clips))
        assert torch.equal(inside.ejection_fraction, beside.ejection_fraction)
        found = Predictor(exported)(video)
        assert found.ejection_fraction == pytest.approx(expected.ejection_fraction, abs=1e-3)
        np.testing.assert_allclose(found.expert_predictions, expected.expert_predictions, atol=1e-3)

    def test_same_command_same_bytes_in_place_of_the_earlier_export(self, exported, checkpoint, tmp_path):
        shutil.copytree(exported, tmp_path / "fp32")
        before = {path.name: path.read_bytes() for path in exported.iterdir()}
        export_model(checkpoint, tmp_path / "fp32", seed=3)
        assert {path.name: path.read_bytes() for path in (tmp_path / "fp32").iterdir()} == before

    def test_damaged_file(self, exported, tmp_path):
        folder = shutil.copytree(exported, tmp_path / "copy")
        with (folder / "encoder.bin").open("r+b") as file:
            file.write(b"\x01")
        with pytest.raises(ValueError, match=r"encoder\.bin is missing or is not the file that was exported"):
            load_export(folder)
        (folder / "encoder.bin").unlink()
        with pytest.raises(ValueError, match=r"encoder\.bin is missing"):
            load_export(folder)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": "pickle"}, "does not state `format`"),
            ({"precision": "fp16"}, "does not state `format`"),
            ({"files": {}}, r"missing or unknown: config\.json"),
        ],
    )
    def test_other_record(self, exported, tmp_path, changes, message):
        folder = shutil.copytree(exported, tmp_path / "copy")
        record = json.loads((folder / "export.json").read_text())
        (folder / "export.json").write_text(json.dumps({**record, **changes}))
        with pytest.raises(ValueError, match=message):
            load_export(folder)

    def test_file_outside_the_folder(self, exported, tmp_path):
        folder = shutil.copytree(exported, tmp_path / "copy")
        record = json.loads((folder / "export.json").read_text())
        record["files"]["../secret"] = "0" * 64
        (folder / "export.json").write_text(json.dumps(record))
        with pytest.raises(ValueError, match=r"missing or unknown: \.\./secret"):
            load_export(folder)

    def test_no_export(self, checkpoint, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no export: export\.json is missing"):
            load_export(checkpoint)
        (tmp_path / "export.json").write_text("{")
        with pytest.raises(ValueError, match="is no JSON file"):
            load_export(tmp_path)

    def test_refused_export_leaves_the_earlier_one(self, exported, checkpoint, tmp_path):
        folder = shutil.copytree(exported, tmp_path / "export")
        before = (folder / "export.json").read_bytes()
        with pytest.raises(ExportRefusedError, match=r"8 clips of noise.*allowed: 0\).*precision fp32"):
            export_model(checkpoint, folder, precision="bf16", max_change=0)
        assert [path.name for path in tmp_path.iterdir()] == ["export"]
        assert (folder / "export.json").read_bytes() == before

    def test_int8_calibrates_searches_and_measures_on_different_videos(
        self, checkpoint, echonet_dir, tmp_path, monkeypatch
    ):
        from echomen_hf.inference.export import exporting as export

        seen = {}
        quantise, measure = export.quantise, export.errors_on_videos

        def watch_quantise(graph, calibration, validation, *rest):
            seen["calibration"] = calibration.videos["file_name"]
            seen["search"] = validation.videos["file_name"]
            return quantise(graph, calibration, validation, *rest)

        def watch_measure(model, processor, engine, videos, *rest):
            seen["measured"] = videos["file_name"]
            return measure(model, processor, engine, videos, *rest)

        monkeypatch.setattr(export, "quantise", watch_quantise)
        monkeypatch.setattr(export, "errors_on_videos", watch_measure)
        record = export_model(
            checkpoint,
            tmp_path / "int8",
            precision="int8",
            data_dir=echonet_dir,
            split="VAL",
            calibration_clips=4,
            max_mae_rise=5,
            max_change=10,
            progress=False,
        )
        splits = {
            name: set(rows["file_name"]) for name, rows in load_echonet_dynamic(echonet_dir, streaming=False).items()
        }
        assert len(seen["calibration"]) == 4 and set(seen["calibration"]) <= splits["train"]
        assert not set(seen["search"]) & set(seen["measured"])
        assert {*seen["search"], *seen["measured"]} == splits["validation"]
        assert record["error"]["num_videos"] == len(seen["measured"])
        assert record["measured_on"]["synthetic_data"] is True
        error = record["error"]
        assert error["mae_rise"] == pytest.approx(error["mae"] - error["mae_reference"], abs=2e-6)
        assert 0 < error["mean_change"] <= error["max_change"]
        quantisation = record["quantisation"]
        assert quantisation["calibration_split"] == "train"
        convolutions = [
            name
            for name, layer in make_exportable_model().encoder.named_modules()
            if isinstance(layer, torch.nn.Conv3d)
        ]
        assert {*quantisation["int8_layers"], *quantisation["bf16_layers"]} == set(convolutions)
        video = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        found, expected = Predictor(tmp_path / "int8")(video), Predictor(checkpoint)(video)
        assert abs(found.ejection_fraction - expected.ejection_fraction) < 5

    def test_int8_without_a_layer_is_refused(self, checkpoint, echonet_dir, tmp_path, monkeypatch):
        from echomen_hf.inference.export import exporting as export
        from echomen_hf.inference.export.quantisation import QuantisedEncoder

        monkeypatch.setattr(export, "quantise", lambda graph, *rest: QuantisedEncoder(graph, (), ("stem.0",)))
        with pytest.raises(ExportRefusedError, match="no layer could be quantised.*more than 0.1 points.*bf16"):
            export_model(checkpoint, tmp_path / "out", precision="int8", data_dir=echonet_dir, progress=False)
        assert list(tmp_path.iterdir()) == []


def test_onnx(checkpoint, echonet_dir, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    record = export_model(
        checkpoint, tmp_path / "onnx", export_format="onnx", data_dir=echonet_dir, max_videos=2, progress=False
    )
    assert record["error"]["num_videos"] == 2
    assert record["error"]["max_change"] < 1e-3
    assert record["quantisation"] is None
    video = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
    found, expected = Predictor(tmp_path / "onnx")(video), Predictor(checkpoint)(video)
    assert found.ejection_fraction == pytest.approx(expected.ejection_fraction, abs=1e-3)


@needs_openvino
def test_an_export_is_evaluated_with_every_protocol(exported, echonet_dir):
    model, processor = load_checkpoint(exported, exports=True)
    videos = load_echonet_dynamic(echonet_dir)
    for protocol in ("center", "every16"):
        windows = windows_of_model(model, protocol, batch_size=4)
        assert windows is None
        assert len(predict_split(model, processor, videos["validation"], protocol, progress=False)) > 0
    with pytest.raises(ValueError, match="engine 'torch' only"):
        windows_of_model(model, "all", batch_size=4, share_windows=True)


@needs_openvino
def test_an_export_in_a_pipeline(exported, echonet_dir, tmp_path):
    video = str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])
    estimate = pipeline("ejection-fraction", model=str(exported))
    expected = Predictor(exported)(video).ejection_fraction
    assert estimate(video)["ejection_fraction"] == pytest.approx(expected, abs=1e-3)
    with pytest.raises(ValueError, match="copy its folder"):
        estimate.save_pretrained(tmp_path / "saved")


def test_an_export_is_not_taken_for_a_model_to_train(exported):
    with pytest.raises(ValueError, match="holds an exported model"):
        load_checkpoint(exported)


@needs_openvino
def test_intervals_of_an_export_are_as_much_wider_as_its_estimates_move(checkpoint, tmp_path):
    model = EchoMENModel.from_pretrained(checkpoint)
    model.config.recalibration = {"predicted": [0.0, 100.0], "corrected": [40.0, 60.0]}
    offsets = {"hfref": [-4.0, 2.0], "hfmref": [-3.0, 3.0], "hfpef": [-2.0, 1.0]}
    model.config.interval_calibration = {"coverage": 0.9, "offsets": offsets, "protocol": "windows"}
    model.save_pretrained(tmp_path / "model")
    EchoMENVideoProcessor.for_model(model.config).save_pretrained(tmp_path / "model")
    record = export_model(tmp_path / "model", tmp_path / "bf16", precision="bf16", max_change=50)
    moved = record["error"]["max_change"]
    config = load_export(tmp_path / "bf16")[0].config
    assert config.recalibration == model.config.recalibration
    found = config.interval_calibration
    assert moved > 0
    assert found["offsets"]["hfref"] == pytest.approx([-4 - moved, 2 + moved])
    assert found["offsets"]["hfpef"] == pytest.approx([-2 - moved, 1 + moved])
