"""Fixtures of the web app; its tests are skipped where the `app` extra is not installed."""

import numpy as np
import pytest
import torch

from helpers.tiny_config import make_tiny_config


pytest.importorskip("gradio")
pytest.importorskip("captum")

from echomen_hf import EchoMENModel, EchoMENVideoProcessor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny model whose weights a fixed seed drew, saved as training saves it."""
    torch.manual_seed(0)
    config = make_tiny_config()
    model = EchoMENModel(config)
    # Fresh experts agree to the third decimal: spread them, so that tests can tell them apart.
    for expert, bias in zip(model.experts, (35.0, 50.0, 65.0)):
        torch.nn.init.constant_(expert.bias, bias)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model.save_pretrained(folder)
    EchoMENVideoProcessor.for_model(config).save_pretrained(folder)
    return folder


@pytest.fixture
def beating_frames():
    """A bright disc whose radius changes, left of the centre; nothing else moves: (60, 64, 64)."""
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 32, columns - 16)
    radius = 8 + 4 * np.cos(2 * np.pi * np.arange(60) / 30)
    frames = np.where(distance < radius[:, None, None], 200, 30)
    frames[:, 20:44, 44:56] = 220  # as bright, and still
    return frames.astype(np.uint8)
