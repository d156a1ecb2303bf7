import numpy as np
import pytest
import torch

from echomen_hf.inference import Engine
from helpers.exportable_model import make_exportable_model


pytest.importorskip("openvino")
from echomen_hf.inference.engines.encoder_graph import clip_array, trace_encoder
from echomen_hf.inference.engines.openvino_engine import OpenVINOEngine, convert_to_openvino, save_openvino


@pytest.fixture(scope="module")
def model():
    return make_exportable_model()


@pytest.fixture(scope="module")
def encoder(model):
    return trace_encoder(model)


@pytest.fixture
def graph(encoder):
    return convert_to_openvino(encoder)


@pytest.fixture(scope="module")
def clips():
    return torch.randn(3, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embeddings(model, clips):
    with torch.inference_mode():
        return model(pixel_values=clips).embedding


@pytest.mark.parametrize("hint", ["latency", "throughput"])
def test_single_precision_is_the_encoder(graph, encoder, clips, embeddings, hint):
    engine = OpenVINOEngine(graph, encoder.clip_shape, num_threads=1, performance_hint=hint)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == ("openvino", "fp32")
    for batch in (1, 3):
        embedding = engine(clips[:batch])
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding, embeddings[:batch], rtol=1e-4, atol=1e-5)


def test_results_do_not_change_with_the_next_batch(graph, encoder, clips):
    engine = OpenVINOEngine(graph, encoder.clip_shape, num_threads=1)
    first = engine(clips[:1])
    kept = first.clone()
    engine(clips[1:2])
    assert torch.equal(first, kept)


def test_bf16_of_a_model_that_is_left_as_it_is(model, clips, embeddings):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    engine = OpenVINOEngine.from_model(model, "bf16", num_threads=1)
    # bfloat16 has eight significant bits.
    torch.testing.assert_close(engine(clips), embeddings, rtol=0.05, atol=0.05 * float(embeddings.abs().max()))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_convolutions_are_named_as_layers(graph, encoder):
    found = {node.get_friendly_name(): node for node in graph.get_ops() if node.get_type_name() == "Convolution"}
    assert found.keys() == encoder.convolution_weights.keys()
    for name, node in found.items():
        np.testing.assert_array_equal(node.input_value(1).get_node().data, encoder.convolution_weights[name])
    # Folded into the convolutions, and the batch is free.
    assert not any("BatchNorm" in node.get_type_name() for node in graph.get_ops())
    assert str(graph.input(0).partial_shape) == "[?,8,1,32,32]"


def test_same_encoder_same_files(graph, encoder, tmp_path):
    files = []
    for name, made in (("a", graph), ("b", convert_to_openvino(encoder))):
        (tmp_path / name).mkdir()
        files.append(save_openvino(made, tmp_path / name / "encoder.xml"))
    assert [path.suffix for path in files[0]] == [".xml", ".bin"]
    for first, second in zip(*files):
        assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in files[0][0].read_bytes()


def test_file_round_trip(graph, encoder, clips, tmp_path):
    save_openvino(graph, tmp_path / "encoder.xml")
    loaded = OpenVINOEngine.from_file(tmp_path / "encoder.xml", encoder.clip_shape, "fp32", num_threads=1)
    assert torch.equal(loaded(clips), OpenVINOEngine(graph, encoder.clip_shape, num_threads=1)(clips))


@pytest.mark.parametrize("shape", [(1, 7, 1, 32, 32), (1, 8, 3, 32, 32), (8, 1, 32, 32)])
def test_clips_of_another_shape(encoder, shape):
    with pytest.raises(ValueError, match=r"\(batch, 8, 1, 32, 32\).*the engine `torch`"):
        clip_array(torch.zeros(shape), encoder.clip_shape)


def test_wrong_settings(model, graph, encoder, tmp_path):
    with pytest.raises(ValueError, match=r"int8 needs an export, see `echomen export`"):
        OpenVINOEngine.from_model(model, "int8")
    for settings in ({"num_threads": 0}, {"performance_hint": "fast"}, {"precision": "fp16"}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))}|fp32, bf16 or int8"):
            OpenVINOEngine(graph, encoder.clip_shape, **settings)
    (tmp_path / "encoder.xml").write_text("<net/>")
    with pytest.raises(ValueError, match=r"encoder\.xml is no OpenVINO model"):
        OpenVINOEngine.from_file(tmp_path / "encoder.xml", encoder.clip_shape, "fp32")
