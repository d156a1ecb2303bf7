"""Post-training quantisation to 8-bit integers, bounded by the change of the ejection fraction.

Plain quantisation of every layer raises the mean absolute error by tenths of a point. Here NNCF quantises all layers,
ranks them by what each does to the ejection fraction of validation videos, and returns the worst to floating point,
one after the other, until the mean absolute change is within the bound. The mean absolute error cannot rise by more
than that; and unlike its rise, which may be small by chance on few videos, the change is estimated well from few.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..engines.optional_packages import import_extra
from ..engines.own_thread import in_own_thread


if TYPE_CHECKING:
    import openvino

__all__ = ["QuantisedEncoder", "quantise"]


class QuantisedEncoder(NamedTuple):
    """A graph, some of whose layers compute with 8-bit integers."""

    graph: openvino.Model
    int8_layers: tuple[str, ...]  # convolutions that are quantised, in the order of computation
    float_layers: tuple[str, ...]  # those that are not


@in_own_thread
def quantise(
    graph: openvino.Model,
    calibration: Sequence[NDArray[np.float32]],
    validation: Sequence[NDArray[np.float32]],
    references: Sequence[float],
    predict: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    max_mean_change: float,
) -> QuantisedEncoder:
    """Quantise an encoder as far as the ejection fraction allows: weights per channel, activations per tensor.

    `calibration` holds clips, (1, T, C, H, W), that show the range of every activation. `validation` holds the clips
    of videos, (K, T, C, H, W), whose EF may change from `references` by `max_mean_change` points on average, beyond
    the change of the graph before. `predict` runs the heads, from embeddings, (B, D), to EF in percent, (B,).
    """
    nncf = import_extra("nncf", "openvino")
    ranges = import_extra("nncf.quantization.range_estimator", "openvino")
    if not len(calibration) or not len(validation) or len(validation) != len(references):
        raise ValueError(
            "Quantisation needs clips to calibrate with, and videos with a reference each to watch the EF of; got "
            f"{len(calibration)} clips, {len(validation)} videos and {len(references)} references."
        )

    def closeness(compiled: Any, positions: Iterable[int]) -> tuple[float, list[float]]:
        scores = [-abs(float(predict(compiled(validation[n])[0]).mean()) - references[n]) for n in positions]
        return float(np.mean(scores)), scores

    nncf.set_log_level(logging.ERROR)
    quantised = nncf.quantize_with_accuracy_control(
        graph.clone(),
        nncf.Dataset(calibration),
        nncf.Dataset(range(len(validation))),
        closeness,
        max_drop=max_mean_change,
        drop_type=nncf.DropType.ABSOLUTE,
        # Activations before a residual sum have both signs.
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(calibration),
        # The pooled feature keeps its digits; rounding it saves nothing.
        ignored_scope=nncf.IgnoredScope(types=["ReduceMean"]),
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            # Weights of 7 bits would help processors without VNNI only.
            overflow_fix=nncf.OverflowFix.DISABLE,
            # Correcting the mean of every channel made the change larger, 1.4 instead of 0.8 points on average.
            disable_bias_correction=True,
            # The average extreme of a clip cuts the activations of unusual hearts off: changes of up to 9 points.
            activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
        ),
    )
    layers = [node for node in quantised.get_ordered_ops() if node.get_type_name() == "Convolution"]
    # NNCF stores quantised weights as integers, or as numbers that a following node rounds.
    is_float = [node.input_value(1).get_node().get_type_name() == "Constant" for node in layers]
    names = [node.get_friendly_name() for node in layers]
    return QuantisedEncoder(
        quantised,
        tuple(name for name, left in zip(names, is_float) if not left),
        tuple(name for name, left in zip(names, is_float) if left),
    )
