import pytest
import torch
from torch import nn

from echomen_hf.inference.engines.planar_convolutions import (
    PlanarSpatialConv,
    PlanarTemporalConv,
    planar_class,
    use_planar_convolutions,
)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "expected"),
    [
        ((1, 3, 3), (1, 1, 1), (0, 1, 1), PlanarSpatialConv),
        ((1, 7, 5), (1, 2, 3), (0, 3, 2), PlanarSpatialConv),
        ((3, 1, 1), (1, 1, 1), (1, 0, 0), PlanarTemporalConv),
        ((3, 1, 1), (2, 1, 1), (1, 0, 0), PlanarTemporalConv),
        ((3, 1, 1), (1, 1, 1), (0, 0, 0), PlanarTemporalConv),
    ],
)
def test_same_as_in_three_dimensions(kernel, stride, padding, expected, bias, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 4, kernel, stride, padding, bias=bias).double()
    features = torch.randn(2, 3, 6, 7, 9, dtype=torch.float64).contiguous(memory_format=memory_format)
    encoder = nn.Sequential(conv)
    use_planar_convolutions(encoder)
    assert type(encoder[0]) is expected
    assert encoder[0].weight is conv.weight
    with torch.no_grad():
        found = encoder(features)
        torch.testing.assert_close(found, conv(features), rtol=0, atol=1e-12)
    if memory_format == torch.channels_last_3d:
        # So that nothing is copied between two of them.
        assert found.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((1, 1, 1), (2, 2, 2), (0, 0, 0)),
        ((1, 3, 3), (2, 1, 1), (0, 1, 1)),
        ((3, 1, 1), (1, 2, 2), (1, 0, 0)),
        ((1, 3, 3), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_others_stay(kernel, stride, padding):
    assert planar_class(nn.Conv3d(3, 4, kernel, stride, padding)) is None


def test_temporal_ones_may_stay(experienced_model):
    encoder = experienced_model.encoder
    use_planar_convolutions(encoder, temporal=False)
    classes = [type(layer) for layer in encoder.modules() if isinstance(layer, nn.Conv3d)]
    assert PlanarSpatialConv in classes
    assert PlanarTemporalConv not in classes
