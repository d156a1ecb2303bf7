import pytest
import torch

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.inference import Engine, make_engine
from echomen_hf.inference.windows.shared_windows import windows_of_model
from helpers.tiny_encoders import ENCODERS, tiny_encoder_config


def make_model(name):
    torch.manual_seed(0)
    return EchoMENModel(EchoMENConfig(encoder_config=tiny_encoder_config(name))).eval()


def clips_of(model, batch=3):
    config = model.config
    shape = (batch, config.num_frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
def test_engine_is_the_encoder(name):
    model = make_model(name)
    engine, clips = make_engine(model), clips_of(model)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == ("torch", "fp32")
    with torch.inference_mode():
        assert torch.equal(engine(clips), model(pixel_values=clips).embedding)
    assert next(model.encoder.parameters()).requires_grad  # the model itself stays as it is


def test_half_precision_is_close():
    model = make_model("videomae")
    engine, clips = make_engine(model, "torch", "bf16"), clips_of(model)
    assert {parameter.dtype for parameter in engine.encoder.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(engine(clips), make_engine(model)(clips), atol=0.05, rtol=0)


def test_what_r2plus1d_alone_can_do_is_refused():
    model = make_model("videomae")
    with pytest.raises(ValueError, match=r"'compile' runs R\(2\+1\)D only, and this encoder is videomae"):
        make_engine(model, "compile")
    assert windows_of_model(model, "all", 4) is None
    with pytest.raises(ValueError, match="not with a network of another architecture"):
        windows_of_model(model, "all", 4, share_windows=True)


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ENCODERS)
def test_other_runtimes_compute_the_same(name, engine_name):
    pytest.importorskip("openvino" if engine_name == "openvino" else "onnxruntime")
    model = make_model(name)
    clips = clips_of(model)
    torch.testing.assert_close(make_engine(model, engine_name)(clips), make_engine(model)(clips), atol=1e-4, rtol=0)


def test_encoder_that_cannot_be_converted_says_so(monkeypatch):
    pytest.importorskip("onnxruntime")
    model = make_model("videomae")
    monkeypatch.setattr(type(model.encoder), "forward", lambda encoder, clips: clips.sum().item() + encoder.nothing)
    with pytest.raises(ValueError, match=r"\(videomae\) cannot be converted for another runtime; use engine 'torch'"):
        make_engine(model, "onnx")
