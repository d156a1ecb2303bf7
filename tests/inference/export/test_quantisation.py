import numpy as np
import pytest
import torch

from echomen_hf import EchoMENConfig, EchoMENModel


pytest.importorskip("openvino")
pytest.importorskip("nncf")
from echomen_hf.inference.engines.encoder_graph import trace_encoder
from echomen_hf.inference.engines.openvino_engine import OpenVINOEngine, convert_to_openvino
from echomen_hf.inference.export.quantisation import quantise


@pytest.fixture(scope="module")
def encoder():
    config = EchoMENConfig(depths=(1,), hidden_sizes=(8,), num_channels=1, num_frames=4, image_size=16)
    torch.manual_seed(0)
    return trace_encoder(EchoMENModel(config).eval())


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(0).standard_normal((12, 1, 4, 1, 16, 16)).astype(np.float32)


def mean_of_embedding(embedding):
    return np.asarray(embedding, dtype=np.float64).mean(axis=1)


@pytest.fixture(scope="module")
def references(encoder, clips):
    with torch.inference_mode():
        return [float(mean_of_embedding(encoder.module(torch.from_numpy(clip)).numpy())[0]) for clip in clips[6:]]


def mean_change(quantised, encoder, clips, references):
    engine = OpenVINOEngine(quantised.graph, encoder.clip_shape, "int8", num_threads=1)
    found = [mean_of_embedding(engine(torch.from_numpy(clip)).numpy())[0] for clip in clips]
    return np.abs(np.subtract(found, references)).mean()


def run(encoder, clips, references, bound):
    return quantise(convert_to_openvino(encoder), clips[:6], clips[6:], references, mean_of_embedding, bound)


def test_wide_bound_quantises_every_convolution(encoder, clips, references):
    quantised = run(encoder, clips, references, bound=10.0)
    assert set(quantised.int8_layers) == encoder.convolution_weights.keys()
    assert quantised.float_layers == ()
    # Something was rounded, and little.
    assert 1e-6 < mean_change(quantised, encoder, clips[6:], references) < 0.2


def test_narrow_bound_leaves_layers_alone(encoder, clips, references):
    everything = mean_change(run(encoder, clips, references, bound=10.0), encoder, clips[6:], references)
    quantised = run(encoder, clips, references, bound=everything / 4)
    assert quantised.float_layers
    assert {*quantised.float_layers, *quantised.int8_layers} == encoder.convolution_weights.keys()
    assert mean_change(quantised, encoder, clips[6:], references) < everything


def test_nothing_fits_a_bound_of_zero(encoder, clips, references):
    # References that only single precision can meet.
    quantised = run(encoder, clips, references, bound=0.0)
    assert len(quantised.float_layers) > len(quantised.int8_layers)


def test_references_for_every_video(encoder, clips):
    with pytest.raises(ValueError, match="6 clips, 6 videos and 2 references"):
        run(encoder, clips, [50.0, 60.0], bound=1.0)
