"""EchoNet-Dynamic's own regression (Ouyang et al. 2020): one linear head, plain mean squared error."""

from __future__ import annotations

from ..method import Method


__all__ = ["ECHONET"]

ECHONET = Method(
    name="echonet",
    title="EchoNet",
    source="Ouyang et al., Video-based AI for beat-to-beat assessment of cardiac function, Nature 2020.",
    group="rival",
)
