import pytest
import torch
from torch import nn

from echomen_hf import EjectionFractionPipeline, Predictor, read_video
from echomen_hf.inference import make_engine, predict_video
from echomen_hf.inference import predictor as predictor_module
from echomen_hf.inference.engines.export_folder import ExportedEncoder


def test_auto_is_torch(tiny_model):
    assert make_engine(tiny_model).name == "torch"
    assert make_engine(tiny_model, "auto", "bf16").precision == "bf16"


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("tensorrt", "fp32", "no engine 'tensorrt'; choose one of auto, torch, compile, onnx, openvino"),
        ("torch", "fp16", "no precision 'fp16'; choose one of fp32, tf32, bf16, int8"),
        ("torch", "int8", "`echomen export`"),
        ("auto", "int8", "`echomen export`"),
        ("onnx", "bf16", "'onnx' has no precision 'bf16', only fp32; bf16 is available in torch, compile, openvino"),
    ],
)
def test_what_does_not_exist_is_refused(tiny_model, engine, precision, message):
    with pytest.raises(ValueError, match=message):
        make_engine(tiny_model, engine, precision)


def test_other_architectures_have_no_engine():
    with pytest.raises(ValueError, match="a Linear runs as it is"):
        make_engine(nn.Linear(2, 2))


class TestPredictor:
    def test_its_engine_is_the_one_asked_for(self, tiny_model, tiny_processor):
        assert Predictor(tiny_model, tiny_processor).engine.name == "torch"
        assert Predictor(tiny_model, tiny_processor, precision="bf16").engine.precision == "bf16"
        with pytest.raises(ValueError, match="`echomen export`"):
            Predictor(tiny_model, tiny_processor, precision="int8")

    def test_wrong_engine_is_refused_before_the_model_is_looked_for(self):
        with pytest.raises(ValueError, match="no engine 'fast'"):
            Predictor("no/such/folder", engine="fast")

    def test_default_differs_by_rounding_only(self, experienced_model, three_channel_processor, echonet_dir):
        path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        predictor = Predictor(experienced_model, three_channel_processor)
        exact = predict_video(experienced_model, three_channel_processor, read_video(path))
        assert abs(predictor(path).ejection_fraction - exact.ejection_fraction) < 1e-4
        assert predictor.processor is three_channel_processor
        assert three_channel_processor.num_channels == 3

    def test_network_of_another_architecture_runs_without(self, tiny_model, tiny_processor):
        tiny_model.config.model_type = "another"
        assert Predictor(tiny_model, tiny_processor).engine is None
        with pytest.raises(ValueError, match="runs as it is"):
            Predictor(tiny_model, tiny_processor, engine="torch")


class TestExport:
    @pytest.fixture
    def folder(self, tiny_model, tiny_processor, tmp_path, monkeypatch):
        """A folder that counts as an export for OpenVINO in bf16, which a machine without OpenVINO can run, too."""
        engine = make_engine(tiny_model, "torch", "bf16")
        monkeypatch.setattr(type(engine), "name", "openvino")
        tiny_model.encoder = ExportedEncoder(engine)
        (tmp_path / "export.json").write_text("{}")
        monkeypatch.setattr(predictor_module, "load_export", lambda folder: (tiny_model, tiny_processor, engine))
        return tmp_path

    def test_brings_its_engine(self, folder, echonet_dir):
        predictor = Predictor(folder)
        assert (predictor.engine.name, predictor.engine.precision) == ("openvino", "bf16")
        path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        alone = predictor(path)
        ((_, together),) = predictor.predict_files([path])
        assert together.ejection_fraction == pytest.approx(alone.ejection_fraction, abs=1e-3)
        assert Predictor(folder, engine="openvino", precision="bf16", device="cpu").engine is predictor.engine

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"engine": "torch"}, "export for engine 'openvino', not 'torch': leave engine out"),
            ({"precision": "fp32"}, "export for precision 'bf16', not 'fp32'"),
            ({"device": "cuda:0"}, "export for device 'cpu', not 'cuda'"),
        ],
    )
    def test_something_else_is_refused(self, folder, asked, message):
        with pytest.raises(ValueError, match=message):
            Predictor(folder, **asked)

    def test_pipeline_runs_it(self, folder, echonet_dir):
        predictor = Predictor(folder)
        pipeline = EjectionFractionPipeline(
            model=predictor.model, video_processor=predictor.processor, engine=predictor.engine
        )
        path = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
        assert pipeline(path)["ejection_fraction"] == pytest.approx(predictor(path).ejection_fraction, abs=1e-3)


@torch.inference_mode()
def test_pipeline_asks_the_engine_for_every_clip(experienced_model, three_channel_processor, echonet_dir):
    path, asked = sorted((echonet_dir / "Videos").glob("*.avi"))[0], []

    def engine(clips):
        asked.append(len(clips))
        return experienced_model.encoder(clips)

    parts = {"model": experienced_model, "video_processor": three_channel_processor}
    plain = EjectionFractionPipeline(**parts)(path)
    assert EjectionFractionPipeline(**parts, engine=engine)(path) == plain
    assert sum(asked) == len(plain["clips"])
