import pytest
import torch

from echomen_hf.model.float32_precision_echomen import float32_precision
from echomen_hf.model.video_prediction_echomen import estimate_clips


@pytest.fixture(autouse=True)
def switches():
    """Leave PyTorch's switches as they are without anybody's choice."""
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "tf32"


def state():
    backends = torch.backends
    # The old switches raise an error where the new ones contradict them.
    assert backends.cuda.matmul.allow_tf32 == (backends.cuda.matmul.fp32_precision == "tf32")
    assert backends.cudnn.allow_tf32 == (backends.cudnn.conv.fp32_precision == "tf32")
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision


def allow_as_transformers_does():
    torch.backends.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "allow", [allow_as_transformers_does, lambda: torch.set_float32_matmul_precision("medium"), lambda: None]
)
@pytest.mark.parametrize(("convolutions", "expected"), [(None, "tf32"), ("ieee", "ieee"), ("tf32", "tf32")])
def test_products_are_exact_and_convolutions_as_asked(allow, convolutions, expected):
    allow()
    before = torch.backends.cuda.matmul.fp32_precision
    with float32_precision(convolutions):
        assert state() == ("ieee", expected)
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        with float32_precision("tf32"):
            assert state() == ("ieee", "tf32")
        assert state() == ("ieee", expected)
    products, after = state()
    assert (products == "tf32") == (before == "tf32")
    assert after == "tf32"


def test_switches_are_restored_after_an_error():
    torch.set_float32_matmul_precision("high")
    with pytest.raises(FloatingPointError), float32_precision("ieee"):
        raise FloatingPointError
    assert state() == ("tf32", "tf32")


@pytest.mark.parametrize("engine", [None, lambda clips: torch.ones(len(clips), 8)])
def test_estimates_are_exact_whatever_the_switches(tiny_model, engine):
    seen = []
    tiny_model.regression_head.register_forward_hook(lambda *_: seen.append(state()))
    torch.set_float32_matmul_precision("high")
    estimate_clips(tiny_model, torch.zeros(2, 8, 1, 32, 32), engine)
    # Convolutions are the engine's own affair.
    assert seen == [("ieee", "ieee" if engine is None else "tf32")]
