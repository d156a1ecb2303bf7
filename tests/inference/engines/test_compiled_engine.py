import pytest
import torch

from echomen_hf.inference import make_engine


# Importing the compiler alone takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("batch_size", [None, 2])
@torch.inference_mode()
def test_compiled_encoder(experienced_model, three_channel_processor, batch_size):
    engine = make_engine(experienced_model, "compile", processor=three_channel_processor)
    assert (engine.name, engine.precision, engine.batch_size) == ("compile", "fp32", 1)
    if batch_size is not None:
        engine.batch_size = batch_size
    clips = torch.randn(3, 8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    engine(clips[:batch_size])
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert compiled > 0
    # Three clips, and then one, are run by what was compiled for one or for two.
    for part in (clips, clips[:1]):
        expected = experienced_model(pixel_values=part.expand(-1, -1, 3, -1, -1)).embedding
        torch.testing.assert_close(engine(part), expected, rtol=0, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_missing_compiler_is_named(experienced_model, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(ValueError, match="takes a C.. compiler: install one .* or use engine 'torch'"):
        make_engine(experienced_model, "compile")
