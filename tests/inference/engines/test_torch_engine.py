import copy
import itertools

import pytest
import torch

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.inference import Engine, make_engine
from echomen_hf.inference.engines import torch_engine
from echomen_hf.inference.engines.torch_engine import BitwiseReLU, FastEncoder, Form, TorchEngine
from helpers.pretend_device import DEVICE, PretendDevice


@pytest.fixture
def gray_clips():
    """Clips of three equal channels."""
    return torch.randn(3, 8, 1, 32, 32, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 3, -1, -1)


def ejection_fractions(model, embedding):
    with torch.inference_mode():
        return model(embedding=embedding).ejection_fraction


@torch.inference_mode()
def test_single_precision_is_that_of_the_model(experienced_model, three_channel_processor, gray_clips):
    expected = experienced_model(pixel_values=gray_clips)
    for processor in (None, three_channel_processor):
        engine = make_engine(experienced_model, "torch", processor=processor)
        embedding = engine(gray_clips)
        assert isinstance(engine, Engine)
        assert (engine.name, engine.precision) == ("torch", "fp32")
        torch.testing.assert_close(embedding, expected.embedding, rtol=0, atol=1e-5)
        difference = ejection_fractions(experienced_model, embedding) - expected.ejection_fraction
        assert difference.abs().max() < 1e-4
    assert expected.ejection_fraction.std() > 0.01


@torch.inference_mode()
def test_half_precision_is_near_and_its_embedding_single(experienced_model, gray_clips):
    expected = experienced_model(pixel_values=gray_clips)
    engine = make_engine(experienced_model, precision="bf16")
    embedding = engine(gray_clips)
    assert engine.precision == "bf16"
    assert embedding.dtype == torch.float32
    # Eight bits of mantissa: each of some ten layers rounds by up to 1/256.
    difference = (embedding - expected.embedding).abs().max() / expected.embedding.abs().max()
    assert 1e-4 < difference < 0.02
    assert not torch.equal(embedding, embedding.bfloat16().float())


@pytest.mark.parametrize("num_frames", [2, 4, 16])
@torch.inference_mode()
def test_half_precision_of_short_last_stages(num_frames):
    # The weight gradient of such convolutions is wrong in torch 2.14; their output is not.
    torch.manual_seed(0)
    config = EchoMENConfig(
        depths=(1, 1, 1, 1), hidden_sizes=(4, 8, 16, 32), num_frames=num_frames, image_size=32, num_channels=1
    )
    model = EchoMENModel(config).eval()
    clips = torch.randn(2, num_frames, 1, 32, 32)
    expected = model(pixel_values=clips).embedding
    found = make_engine(model, precision="bf16")(clips)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_model_is_left_as_it_is(experienced_model, three_channel_processor):
    before = {name: value.clone() for name, value in experienced_model.state_dict().items()}
    engine = make_engine(experienced_model, precision="bf16", processor=three_channel_processor)
    engine(torch.zeros(1, 8, 1, 32, 32))
    after = experienced_model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    assert experienced_model.encoder.stem[0].weight.is_contiguous()


def test_one_channel_is_enough_if_the_processor_makes_them_equal(
    experienced_model, three_channel_processor, gray_clips
):
    engine = make_engine(experienced_model, processor=three_channel_processor)
    assert engine.num_channels == 1
    assert torch.equal(engine(gray_clips), engine(gray_clips[:, :, :1]))
    three_channel_processor.image_mean = [30.0, 32.0, 34.0]
    assert make_engine(experienced_model, processor=three_channel_processor).num_channels == 3
    assert make_engine(experienced_model).num_channels == 3


def test_clips_of_a_batch_do_not_meet(experienced_model, gray_clips):
    for precision, bound in (("fp32", 1e-6), ("bf16", 1e-2)):
        engine = make_engine(experienced_model, precision=precision)
        alone = torch.cat([engine(clip[None]) for clip in gray_clips])
        torch.testing.assert_close(engine(gray_clips), alone, rtol=0, atol=bound)


def test_convolutions_have_their_channels_last(experienced_model):
    weight = make_engine(experienced_model).encoder.encoder.layer1[0].conv1[0][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.is_contiguous()


def test_relu_by_bits():
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    every = every[~every.isnan()]
    expected = every.relu()
    assert len(expected) == 2**16 - 2 * 127
    assert torch.equal(BitwiseReLU()(every.clone()), expected)


def test_relu_by_bits_where_it_is_faster(experienced_model):
    for precision, found in (("fp32", False), ("bf16", True)):
        modules = make_engine(experienced_model, precision=precision).encoder.modules()
        assert any(isinstance(module, BitwiseReLU) for module in modules) is found


@pytest.mark.parametrize("form", [Form(*choice) for choice in itertools.product((False, True), repeat=2)], ids=str)
def test_every_form_gives_the_same_embedding(experienced_model, gray_clips, form):
    expected = make_engine(experienced_model)(gray_clips)
    encoder = FastEncoder(experienced_model.encoder, torch.float32, form=form)
    torch.testing.assert_close(TorchEngine(encoder, "fp32")(gray_clips), expected, rtol=1e-4, atol=1e-4)


class TestForms:
    @pytest.fixture(autouse=True)
    def times(self, monkeypatch):
        """Make one form the fastest, and count how many were tried."""
        tried = []
        monkeypatch.setattr(torch_engine, "_measured", {})
        monkeypatch.setattr(
            torch_engine,
            "seconds_of",
            lambda engine, clips: tried.append(engine.encoder.form) or (engine.encoder.form != (True, False, False)),
        )
        return tried

    def test_accelerators_get_the_one_that_is_the_fastest_there(self, experienced_model, times):
        with PretendDevice():
            model = copy.deepcopy(experienced_model).to(DEVICE)
            assert make_engine(model).encoder.form == Form(channels_last=True, planar=False)
            make_engine(model)
            assert len(times) == len(set(times)) == 4
            make_engine(model, batch_size=8)
            assert len(times) == 8

    def test_nothing_is_tried_on_processors_or_where_results_must_not_depend_on_time(self, experienced_model, times):
        assert make_engine(experienced_model).encoder.form == Form(channels_last=True, planar=True)
        with PretendDevice():
            torch.use_deterministic_algorithms(True)
            try:
                engine = make_engine(copy.deepcopy(experienced_model).to(DEVICE))
            finally:
                torch.use_deterministic_algorithms(False)
        assert engine.encoder.form == Form(channels_last=False, planar=False)
        assert times == []


def test_tf32_is_refused_where_there_is_none(experienced_model):
    for engine in ("torch", "compile"):
        with pytest.raises(ValueError, match="'tf32' is that of NVIDIA GPUs, and the model is on cpu"):
            make_engine(experienced_model, engine, "tf32")


def test_convolutions_of_each_precision(experienced_model, gray_clips):
    seen = []
    encoder = FastEncoder(experienced_model.encoder, torch.float32)
    encoder.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    for precision in ("fp32", "tf32"):
        TorchEngine(encoder, precision)(gray_clips)
    assert seen == ["ieee", "tf32"]
