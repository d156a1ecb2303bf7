import pytest
import torch

from echomen_hf.inference import Engine
from helpers.exportable_model import make_exportable_model


pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
import onnx

from echomen_hf.inference.engines.encoder_graph import ClipShape, trace_encoder
from echomen_hf.inference.engines.onnx_engine import ONNXEngine, save_onnx


@pytest.fixture(scope="module")
def model():
    return make_exportable_model()


@pytest.fixture(scope="module")
def engine(model):
    return ONNXEngine.from_model(model, num_threads=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_engine_is_the_encoder(model, engine, batch):
    clips = torch.randn(batch, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == ("onnx", "fp32")
    with torch.inference_mode():
        expected = model(pixel_values=clips).embedding
    torch.testing.assert_close(engine(clips), expected, rtol=1e-4, atol=1e-5)


def test_file_is_whole_repeats_and_tells_nothing_of_the_machine(model, tmp_path):
    files = [save_onnx(trace_encoder(model), tmp_path / name) for name in ("a.onnx", "b.onnx")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    content = files[0][0].read_bytes()
    assert content == files[1][0].read_bytes()
    assert b".py" not in content
    graph = onnx.load(files[0][0])
    onnx.checker.check_model(graph, full_check=True)
    dimensions = graph.graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param
    assert [dimension.dim_value for dimension in dimensions[1:]] == [8, 1, 32, 32]


def test_clips_of_another_shape(engine):
    with pytest.raises(ValueError, match=r"\(batch, 8, 1, 32, 32\).*got \(1, 8, 1, 16, 32\)"):
        engine(torch.zeros(1, 8, 1, 16, 32))


def test_broken_file_and_settings(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"encoder\.onnx is no ONNX model"):
        ONNXEngine(tmp_path / "encoder.onnx", ClipShape(8, 1, 32, 32))
    with pytest.raises(ValueError, match="num_threads"):
        ONNXEngine(tmp_path / "encoder.onnx", ClipShape(8, 1, 32, 32), num_threads=0)
