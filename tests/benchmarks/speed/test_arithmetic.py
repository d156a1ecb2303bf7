import pytest
import torch
from torchvision.models.video import r2plus1d_18

from benchmarks.speed.arithmetic import (
    Accelerators,
    Recipe,
    encoder_flops,
    estimate_training,
    saved_bytes,
    step_memory,
)
from echomen_hf import EchoMENConfig


def convolution_flops(network, clip):
    """Two operations per weight and output position, counted by hooks."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        total += 2 * layer.weight.numel() * output[0, 0].numel() * len(output)

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    network(clip)
    for hook in hooks:
        hook.remove()
    return total


def test_flops_of_a_clip_are_those_of_torchvisions_network():
    with torch.device("meta"):
        network = r2plus1d_18(weights=None).eval()
        expected = convolution_flops(network, torch.empty(1, 3, 32, 112, 112))
    assert encoder_flops(EchoMENConfig()) == expected == pytest.approx(162.1e9, rel=1e-3)


def test_backward_pass_is_two_forward_passes_but_for_the_gradient_of_pixels():
    config = EchoMENConfig()
    forward, both = encoder_flops(config), encoder_flops(config, training=True)
    stem = 2 * 3 * 45 * 49 * 32 * 56 * 56
    assert both == 3 * forward - stem


def test_estimate_by_hand(tiny_config):
    # 10 epochs of 30 videos in 2 views, forward and backward, and of 5 forward.
    recipe = Recipe(train_videos=30, val_videos=5, num_views=2, epochs=10)
    machines = Accelerators(count=2, peak_flops=1e9, utilisation=0.25)
    total = 10 * (60 * encoder_flops(tiny_config, training=True) + 5 * encoder_flops(tiny_config))
    estimate = estimate_training(tiny_config, machines, recipe)
    assert estimate.total_flops == total
    assert estimate.hours * 3600 == pytest.approx(total / 0.5e9)
    assert estimate.videos_per_second == pytest.approx(350 / (total / 0.5e9))
    assert estimate.loader_cores(0.01) == pytest.approx(0.01 * estimate.videos_per_second)


def test_eight_accelerators_take_an_eighth_and_read_eight_times_as_fast():
    one, eight = (estimate_training(EchoMENConfig(), Accelerators(count)) for count in (1, 8))
    assert eight.hours == pytest.approx(one.hours / 8)
    assert eight.videos_per_second == pytest.approx(8 * one.videos_per_second)


def test_saved_bytes_by_hand():
    layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU())
    # The input of the linear layer and the output of the rectifier.
    assert saved_bytes(layers, torch.zeros(4, 8)) == 4 * (4 * 8 + 4 * 16)


def test_memory_of_the_papers_step():
    config = EchoMENConfig()
    full, half = (step_memory(config, 40, bf16=bf16) for bf16 in (False, True))
    assert full.activations / 2**30 == pytest.approx(37.4, abs=0.1)
    assert half.activations == pytest.approx(full.activations / 2, rel=0.01)
    assert step_memory(config, 20).activations == pytest.approx(full.activations / 2, rel=0.01)
    small = step_memory(config, 40, bf16=True, checkpointing=True)
    assert small.activations < half.activations / 6 and 0 < small.recomputed < half.activations / 2
    assert full.weights == pytest.approx(12 * 31_500_000, rel=0.02)
