"""How far the estimates of test protocols with fewer clips are from those of one with all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from echomen_hf.evaluation.report import markdown_table
from echomen_hf.inference.engines.factory import make_engine
from echomen_hf.inference.video_prediction import predict_split
from echomen_hf.inference.windows.shared_windows import windows_of_engine
from echomen_hf.model.clip_sampling_echomen import parse_protocol
from echomen_hf.model.modeling_echomen import EchoMENModel
from echomen_hf.model.video_processing_echomen import EchoMENVideoProcessor


__all__ = ["compare_protocols", "protocol_table"]


def compare_protocols(
    model: EchoMENModel,
    processor: EchoMENVideoProcessor,
    videos: Sequence[dict[str, Any]],
    protocols: Sequence[str],
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Predict the videos of a split by several protocols.

    Args:
        model: Trained model.
        processor: Its video processor.
        videos: Rows as `load_echonet_dynamic` gives them.
        protocols: Protocols, see `protocol_starts`; the first is the one that the others are compared with.
        batch_size: Clips per forward pass.
        num_workers: Processes that read videos.
        progress: Whether to show progress bars.

    Returns:
        One row per protocol, in EF points: `mean_change` and `largest_change` of the estimates, and `mae`; `clips`,
        the mean number per video; `seconds` per video, which depend on the machine.

    Raises:
        ValueError: If there is no such protocol.
    """
    protocols = [parse_protocol(protocol) for protocol in protocols]
    labels = np.asarray(videos["ejection_fraction"], np.float64)  # type: ignore[call-overload]
    rows: list[dict[str, Any]] = []
    reference = None
    engine = make_engine(model, "torch", batch_size=batch_size)
    # The first prediction prepares what later ones find ready, and its time would count for the first protocol.
    predict_split(model, processor, [videos[0]], protocols[-1], batch_size, progress=False, engine=engine)
    for protocol in protocols:
        windows = windows_of_engine(engine, protocol, batch_size, None)
        begin = time.perf_counter()
        found = predict_split(
            model, processor, videos, protocol, batch_size, num_workers, progress, engine=engine, windows=windows
        )
        seconds = (time.perf_counter() - begin) / len(labels)
        predicted = np.array([prediction.ejection_fraction for prediction in found])
        reference = predicted if reference is None else reference
        change = np.abs(predicted - reference)
        rows.append(
            {
                "protocol": protocol,
                "clips": float(np.mean([prediction.num_clips for prediction in found])),
                "mean_change": float(change.mean()),
                "largest_change": float(change.max()),
                "mae": float(np.abs(predicted - labels).mean()),
                "seconds": seconds,
            }
        )
    return rows


def protocol_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay out a comparison of protocols.

    Args:
        rows: Result of `compare_protocols`.

    Returns:
        Markdown table.
    """
    first = rows[0]["protocol"]
    header = ["Protocol", "Clips per video", f"Mean change against `{first}`", "Largest", "MAE", "Seconds per video"]
    cells = []
    for number, row in enumerate(rows):
        changes = [f"{row['mean_change']:.2f}", f"{row['largest_change']:.2f}"] if number else ["", ""]
        cells.append(
            [f"`{row['protocol']}`", f"{row['clips']:.1f}", *changes, f"{row['mae']:.2f}", f"{row['seconds']:.3f}"]
        )
    return markdown_table(header, cells)
