"""Rounding of filters to bfloat16."""

import torch
from torch import nn

from echomen_hf.inference.engines.bf16_rounding import round_filters, round_to_bf16


def test_weights_are_bfloat16_numbers_next_to_the_original():
    weight = torch.randn(5, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    rounded = round_to_bf16(weight)
    assert torch.equal(rounded, rounded.bfloat16().float())
    # A step of bfloat16 is at most 2^-7 of the value; the error of the one before may add another half step of that.
    assert ((rounded - weight).abs() <= 2**-7 * weight.abs().amax()).all()


def test_sum_of_every_filter_is_kept():
    weight = torch.randn(6, 16, 1, 3, 3, generator=torch.Generator().manual_seed(1)) + 0.3
    exact = weight.double().flatten(1).sum(1)
    kept = (round_to_bf16(weight).double().flatten(1).sum(1) - exact).abs()
    plain = (weight.bfloat16().double().flatten(1).sum(1) - exact).abs()
    assert kept.max() <= 2**-8 * weight.abs().max() * 1.01
    assert kept.mean() < plain.mean() / 3


def test_by_hand():
    # Between 1 and 2 bfloat16 has steps of 2^-7.
    step = 2.0**-7
    weight = torch.tensor([1 + 0.4 * step, 1 + 0.4 * step, 1.0]).view(1, 1, 3, 1, 1)
    assert round_to_bf16(weight).flatten().tolist() == [1.0, 1 + step, 1.0]


def test_response_to_constant_features_moves_less():
    torch.manual_seed(2)
    conv = nn.Sequential(nn.Conv3d(32, 8, (1, 3, 3), bias=False)).requires_grad_(False)
    features = torch.rand(1, 32, 2, 8, 8) * 0.1 + 1
    exact = conv(features)
    plain = nn.functional.conv3d(features, conv[0].weight.bfloat16().float())
    round_filters(conv)
    assert (conv(features) - exact).mean(dim=(0, 2, 3, 4)).abs().max() < (plain - exact).mean(
        dim=(0, 2, 3, 4)
    ).abs().max() / 3
