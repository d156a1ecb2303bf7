"""Operations and time of the heads when only the k experts with the largest weights are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from ..model.configuration_echomen import EchoMENConfig
from ..model.modeling_echomen import EchoMENModel


__all__ = ["routing_cost"]


@torch.inference_mode()
def routing_cost(model_config: Mapping[str, Any], batch_sizes: tuple[int, ...] = (1, 32)) -> pd.DataFrame:
    """Measure FLOPs and microseconds per clip for every k and batch size, with random weights."""
    # Imported here, since they look for a C++ compiler and CUDA and print what they find.
    from torch.utils.benchmark import Timer
    from torch.utils.flop_counter import FlopCounterMode

    config = EchoMENConfig(**model_config)
    torch.manual_seed(0)
    model = EchoMENModel(config).eval()
    rows = []
    for top_k in range(1, config.num_experts + 1):
        model.config.expert_top_k = top_k
        for size in batch_sizes:
            embedding = torch.randn(size, config.embedding_size)
            with FlopCounterMode(display=False) as counter:
                model(embedding=embedding)
            timer = Timer("model(embedding=embedding)", globals={"model": model, "embedding": embedding})
            seconds = timer.blocked_autorange(min_run_time=0.5).median
            rows.append(
                {
                    "top_k": top_k,
                    "batch_size": size,
                    "flops_per_clip": counter.get_total_flops() / size,
                    "microseconds_per_clip": 1e6 * seconds / size,
                }
            )
    return pd.DataFrame(rows)
