"""What routing to the k heaviest experts costs: operations and time of the heads behind the encoder."""

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
    """Measure the heads (aggregator, experts, projector, regression head) for every k.

    Args:
        model_config: Configuration fields of EchoMEN's network.
        batch_sizes: Clips per forward pass.

    Returns:
        A row per k and batch size: `top_k`, `batch_size`, `flops_per_clip` (floating-point operations in matrix
        products) and `microseconds_per_clip` (median). They do not depend on the weights, which are random here.
    """
    # Imported here, since they look for a C++ compiler and for CUDA, aloud.
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
