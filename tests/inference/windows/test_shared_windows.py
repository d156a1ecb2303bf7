from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from echomen_hf import EchoMENConfig, EchoMENModel, Predictor, load_echonet_dynamic
from echomen_hf.inference import VideoPrediction, predict_split
from echomen_hf.inference.engines.folding import fold_batch_norms
from echomen_hf.inference.windows import (
    SharedWindows,
    has_overlapping_clips,
    windows_of_engine,
    windows_of_model,
)
from echomen_hf.model.clip_sampling_echomen import ClipSpec, clip_indices, protocol_starts
from echomen_hf.model.r2plus1d_echomen import R2Plus1DEncoder


def make_encoder(num_channels: int = 1, dtype: torch.dtype = torch.float64, **changes) -> R2Plus1DEncoder:
    """An encoder whose batch normalisation does something, so that an error in any layer would be seen."""
    torch.manual_seed(0)
    config = EchoMENConfig(image_size=16, num_channels=num_channels, **changes)
    encoder = EchoMENModel(config).encoder.double().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return encoder.to(dtype)


def make_frames(num_frames: int, num_channels: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_frames, num_channels, 16, 16, generator=generator, dtype=dtype)


@torch.inference_mode()
def encode_one_by_one(encoder, frames, starts, spec, fps) -> torch.Tensor:
    indices = np.stack([clip_indices(int(start), len(frames), fps, spec) for start in starts])
    padded = torch.cat([frames, torch.zeros_like(frames[:1])])  # index -1 stands for a frame past the end
    return encoder(padded[torch.from_numpy(indices)])


SMALL = {"depths": (1, 1, 1), "hidden_sizes": (3, 4, 5), "num_frames": 16}
DEEP = {"depths": (2, 2, 2, 2), "hidden_sizes": (2, 3, 4, 5), "num_frames": 32}
TWO_STAGES = {"depths": (2, 2), "hidden_sizes": (3, 4), "num_frames": 32}
ODD = {"depths": (3, 2), "hidden_sizes": (3, 4), "num_frames": 33}
SHORT = {"depths": (1, 1), "hidden_sizes": (4, 8), "num_frames": 8}
ONE_STAGE = {"depths": (1,), "hidden_sizes": (4,), "num_frames": 5}


@pytest.mark.parametrize(
    ("sizes", "channels", "fps", "protocol", "num_frames"),
    [
        (DEEP, 3, 50, "all", 90),
        (DEEP, 1, 25, "all", 45),
        (DEEP, 1, 30, "all", 60),
        (DEEP, 1, 50, "every4", 101),
        (TWO_STAGES, 3, 60, "all", 90),
        (TWO_STAGES, 1, 50, "every8", 131),
        (TWO_STAGES, 1, 12.5, "all", 30),
        (TWO_STAGES, 1, 57.3, "all", 80),
        (ODD, 1, 50, "all", 85),
        (ODD, 1, 50, "windows", 171),
        (SMALL, 1, 50, "all", 70),
        (SMALL, 1, 50, "all", 20),
        (SMALL, 1, 60, "every2", 71),
        (SHORT, 3, 50, "all", 40),
        (ONE_STAGE, 1, 25, "7", 30),
    ],
)
def test_shared_embeddings_are_those_of_single_clips_at_the_predicted_cost(
    sizes, channels, fps, protocol, num_frames
) -> None:
    encoder, frames, spec = (
        make_encoder(channels, **sizes),
        make_frames(num_frames, channels),
        ClipSpec(sizes["num_frames"]),
    )
    starts, offsets = protocol_starts(protocol, num_frames, fps, spec), spec.frame_offsets(fps)
    # Long timelines are cut in parts, and 4 clips at a time leave an incomplete batch.
    windows = SharedWindows(encoder, batch_size=4, max_frames=sizes["num_frames"] + 9)
    with FlopCounterMode(display=False) as counter:
        shared = windows(frames, starts, offsets)
    cost = windows.cost(starts, offsets, 16, 16)
    with FlopCounterMode(display=False) as single_counter:
        single = encode_one_by_one(encoder, frames, starts, spec, fps)

    assert len(starts) == 1 or single.std(dim=0).max() > 1e-3
    torch.testing.assert_close(shared, single, rtol=0, atol=1e-9)
    assert counter.get_total_flops() == cost.shared
    assert single_counter.get_total_flops() == cost.clip_by_clip


def test_folded_encoder_in_single_precision() -> None:
    encoder, frames, spec = fold_batch_norms(make_encoder(**DEEP, dtype=torch.float32)), make_frames(80), ClipSpec()
    frames = frames.float()
    starts = protocol_starts("all", 80, 50, spec)
    shared = SharedWindows(encoder)(frames, starts, spec.frame_offsets(50))
    assert shared.dtype == torch.float32
    torch.testing.assert_close(shared, encode_one_by_one(encoder, frames, starts, spec, 50), rtol=1e-5, atol=1e-5)


def test_half_precision_differs_by_its_rounding_only() -> None:
    half, spec, starts = make_encoder(**SMALL, dtype=torch.bfloat16), ClipSpec(16), np.arange(10)
    shared = SharedWindows(half)(make_frames(40).float(), starts, spec.frame_offsets(50))
    assert shared.dtype == torch.float32
    exact = encode_one_by_one(make_encoder(**SMALL), make_frames(40), starts, spec, 50)
    single = encode_one_by_one(half, make_frames(40).float(), starts, spec, 50)
    rounding = (single - exact).abs().max()
    assert 0 < rounding < 0.1
    assert (shared - single).abs().max() <= rounding


def test_embeddings_come_in_the_order_of_the_starts() -> None:
    encoder, frames, spec = make_encoder(**SMALL), make_frames(50), ClipSpec(16)
    starts = np.array([7, 0, 19, 2, 4, 7])
    shared = SharedWindows(encoder)(frames, starts, spec.frame_offsets(50))
    torch.testing.assert_close(shared, encode_one_by_one(encoder, frames, starts, spec, 50), rtol=0, atol=1e-9)


def test_frames_are_normalised_a_timeline_at_a_time() -> None:
    encoder, frames, spec, sizes = make_encoder(**SMALL), make_frames(200), ClipSpec(16), []

    def halve(taken: torch.Tensor) -> torch.Tensor:
        sizes.append(len(taken))
        return taken / 2

    starts = protocol_starts("all", 200, 50, spec)
    windows = SharedWindows(encoder, batch_size=1, max_frames=20)
    shared = windows(frames, starts, spec.frame_offsets(50), halve)
    assert max(sizes) == 20
    torch.testing.assert_close(shared, windows(frames / 2, starts, spec.frame_offsets(50)), rtol=0, atol=0)


def test_frames_past_the_end_are_zero_after_normalisation() -> None:
    encoder, frames, spec = make_encoder(**SMALL), make_frames(20), ClipSpec(16)
    shared = SharedWindows(encoder)(frames, np.array([0]), spec.frame_offsets(50), lambda taken: taken + 1)
    single = encode_one_by_one(encoder, frames + 1, np.array([0]), spec, 50)
    torch.testing.assert_close(shared, single, rtol=0, atol=1e-9)


def test_encoder_in_training_mode_is_refused() -> None:
    windows = SharedWindows(make_encoder(**SMALL).train())
    with pytest.raises(ValueError, match=r"call `eval\(\)`"):
        windows(make_frames(40), np.arange(4), ClipSpec(16).frame_offsets(50))


@pytest.mark.parametrize(
    ("frames", "starts", "message"),
    [
        (make_frames(40, 3), [0], r"shape \(N, 1, height, width\), got \(\d+, 3, 16, 16\)"),
        (make_frames(40), [], "at least one frame number"),
        (make_frames(40), [-1], r"in \[0, 40\)"),
        (make_frames(40), [0, 40], r"in \[0, 40\)"),
    ],
)
def test_input_that_does_not_fit_is_refused(frames, starts, message) -> None:
    with pytest.raises(ValueError, match=message):
        SharedWindows(make_encoder(**SMALL))(frames, np.array(starts, dtype=int), ClipSpec(16).frame_offsets(50))


@pytest.mark.parametrize("option", ["batch_size", "max_frames"])
def test_sizes_below_one_are_refused(option) -> None:
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        SharedWindows(make_encoder(**SMALL), **{option: 0})


@pytest.fixture
def videos(echonet_dir):
    """The two longest synthetic videos and the shortest one."""
    rows = sorted(load_echonet_dynamic(echonet_dir)["train"], key=lambda row: row["num_frames"])
    return [*rows[-2:], rows[0]]


def assert_equal_but_for_rounding(found: VideoPrediction, expected: VideoPrediction) -> None:
    assert found.file_name == expected.file_name
    assert found.num_clips == expected.num_clips
    for name in ("clip_ejection_fractions", "expert_predictions", "expert_weights", "regression", "ejection_fraction"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-5, rtol=0)


@pytest.mark.parametrize("protocol", ["all", "every4"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_split_is_predicted_as_clip_by_clip(
    experienced_model, three_channel_processor, videos, protocol, num_workers
) -> None:
    model, processor = experienced_model, three_channel_processor
    windows = windows_of_model(model, protocol, batch_size=3)
    shared = predict_split(
        model, processor, videos, protocol, num_workers=num_workers, progress=False, windows=windows
    )
    single = predict_split(model, processor, videos, protocol, progress=False)
    assert max(prediction.num_clips for prediction in single) >= 5
    assert max(prediction.clip_sd for prediction in single) > 1e-3
    for found, expected in zip(shared, single, strict=True):
        assert_equal_but_for_rounding(found, expected)


@pytest.mark.parametrize("protocol", ["all", "every4"])
def test_predictor_shares_by_default_and_can_be_told_not_to(
    experienced_model, three_channel_processor, videos, protocol, monkeypatch
) -> None:
    calls = []
    run = SharedWindows.__call__
    monkeypatch.setattr(SharedWindows, "__call__", lambda *arguments: calls.append(1) or run(*arguments))
    paths = [Path(row["video"]["path"]) for row in videos]
    single = Predictor(experienced_model, three_channel_processor, protocol, device="cpu", share_windows=False)
    expected = dict(single.predict_files(paths))
    assert calls == []
    shared = Predictor(experienced_model, three_channel_processor, protocol, device="cpu")
    found = dict(shared.predict_files(paths))
    assert len(calls) == len(videos)
    for path in paths:
        assert_equal_but_for_rounding(found[path], expected[path])
        assert_equal_but_for_rounding(shared(path), single(path))


def test_predictor_goes_on_after_a_file_that_cannot_be_read(tiny_model, tiny_processor, videos, tmp_path) -> None:
    paths = [tmp_path / "missing.avi", Path(videos[0]["video"]["path"])]
    results = list(Predictor(tiny_model, tiny_processor, "all", device="cpu").predict_files(paths))
    assert [path for path, _ in results] == paths
    assert "does not exist" in str(results[0][1])
    assert isinstance(results[1][1], VideoPrediction)


def test_protocols_whose_clips_hardly_overlap_are_run_clip_by_clip(tiny_model) -> None:
    assert has_overlapping_clips("ALL")
    assert has_overlapping_clips("every08")
    for protocol in ("windows", "center", "7"):
        assert not has_overlapping_clips(protocol)
        assert windows_of_model(tiny_model, protocol, batch_size=4, share_windows=True) is None
    assert windows_of_model(tiny_model, "all", batch_size=4, share_windows=False) is None


def test_engine_that_cannot_share_is_named() -> None:
    class OtherEngine:
        name, precision = "openvino", "fp32"

    assert windows_of_engine(OtherEngine(), "all", batch_size=4, share_windows=None) is None
    with pytest.raises(ValueError, match="engine 'torch' only, not with engine 'openvino'"):
        windows_of_engine(OtherEngine(), "all", batch_size=4, share_windows=True)
    with pytest.raises(ValueError, match="not with a network of another architecture"):
        windows_of_engine(None, "all", batch_size=4, share_windows=True)
