"""EchoMEN on other encoders: the same two stages, losses and heads, with a video model in place of R(2+1)D."""

from __future__ import annotations

from dataclasses import replace

from .echomen import ECHOMEN


__all__ = ["ECHO_UNIFORMER", "TIMESFORMER", "UVT_ENCODER", "VIDEOMAE", "VIVIT", "VJEPA2"]

VIDEOMAE, TIMESFORMER, VIVIT, VJEPA2, ECHO_UNIFORMER, UVT_ENCODER = (
    replace(
        ECHOMEN,
        name=name,
        title=f"EchoMEN, {title}",
        source=f"EchoMEN with {title} as its encoder, of the published size unless `encoder_config` says otherwise.",
        group="encoder",
        encoder=encoder,
    )
    for name, title, encoder in (
        ("echomen_videomae", "VideoMAE", "videomae"),
        ("echomen_timesformer", "TimeSformer", "timesformer"),
        ("echomen_vivit", "ViViT", "vivit"),
        ("echomen_vjepa2", "V-JEPA 2", "vjepa2"),
        ("echomen_uniformer", "UniFormer", "echo_uniformer"),
        ("echomen_uvt", "UVT encoder", "uvt"),
    )
)
