"""Settings of stage 2 that are compared, by experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


__all__ = ["EXPERIMENTS", "TRAINING", "Setting"]

TRAINING: Mapping[str, Any] = {
    "num_train_epochs": 15,
    "optim": "adamw_torch",
    "learning_rate": 3e-2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "per_device_train_batch_size": 128,
    # `compare.yaml` has a hundredth, for 20 times as many steps.
    "aggregator_learning_rate_factor": 0.1,
}
"""Arguments of every training, but for those that a setting changes."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A training split, and a way to train experts and aggregator on it.

    Args:
        name: Name in files.
        title: Name in tables.
        imbalance: Videos with HFpEF for one with HFrEF in TRAIN; of HFmrEF, the same share is kept as of HFrEF.
        weak_share: Share of the videos with HFrEF that TRAIN keeps.
        label_noise: Standard deviation of what is added to the labels of TRAIN, in EF points.
        training: Training arguments.
        hidden_experts: Whether experts have a hidden layer.
        aggregator_input: What the aggregator sees: the embedding, the outputs of the experts, or both.
        soft_target: Standard deviation of EF in the soft targets of the aggregator, which say how likely each
            expert's error is; `None` for the error of the ensemble.
    """

    name: str
    title: str
    imbalance: float | None = None
    weak_share: float = 1.0
    label_noise: float = 0.0
    training: Mapping[str, Any] = field(default_factory=dict)
    hidden_experts: bool = False
    aggregator_input: Literal["embedding", "experts", "both"] = "embedding"
    soft_target: float | None = None


NATURAL = Setting(name="natural", title="as it is")
SOLVED = {"expert_solver": "least_squares", "learning_rate": 3e-3, "aggregator_learning_rate_factor": 1.0}
LETTER = {"expert_min_count": 1}


def make_aggregators() -> list[Setting]:
    """Ways to train the aggregator, with the floor of 1 % and with the paper's of one video."""
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "slow": ("slow aggregator (0.01)", {"training": {"aggregator_learning_rate_factor": 0.01}}),
        "usual": ("factor 0.1", {}),
        "fast": ("fast aggregator (1)", {"training": {"aggregator_learning_rate_factor": 1.0}}),
        "weighted_half": ("aggregator's weights f^-0.5", {"training": {"aggregator_weight_exponent": 0.5}}),
        "weighted": ("aggregator's weights f^-1", {"training": {"aggregator_weight_exponent": 1.0}}),
        "joint_weighted": (
            "joint gradients, f^-1",
            {"training": {"aggregator_gradients": "joint", "aggregator_weight_exponent": 1.0}},
        ),
        "experts": ("sees the experts", {"aggregator_input": "experts"}),
        "both": ("sees both", {"aggregator_input": "both"}),
        "both_weighted": (
            "sees both, f^-1",
            {"aggregator_input": "both", "training": {"aggregator_weight_exponent": 1.0}},
        ),
        "solved_weighted": ("experts solved, f^-1", {"training": {**SOLVED, "aggregator_weight_exponent": 1.0}}),
        "soft": ("experts solved, soft targets", {"training": SOLVED, "soft_target": 4.0}),
        "soft_weighted": (
            "experts solved, soft targets, f^-1",
            {"training": {**SOLVED, "aggregator_weight_exponent": 1.0}, "soft_target": 4.0},
        ),
    }
    floors = {"": ("floor 1 %", {}), "_letter": ("floor 1", LETTER)}
    known = {"aggregator_usual": "natural", "aggregator_usual_letter": "floor_1"}
    return [
        Setting(
            name=known.get(f"aggregator_{name}{ending}", f"aggregator_{name}{ending}"),
            title=f"{title}, {floor}",
            **{**fields, "training": {**fields.get("training", {}), **changed}},
        )
        for ending, (floor, changed) in floors.items()
        for name, (title, fields) in ways.items()
    ]


EXPERIMENTS: Mapping[str, tuple[str, list[Setting]]] = {
    "imbalance": (
        "Imbalance of TRAIN",
        [
            NATURAL,
            *(Setting(name=f"imbalance_{n}", title=f"{n} HFpEF : 1 HFrEF", imbalance=n) for n in (5, 20, 80)),
        ],
    ),
    "weak_hearts": (
        "Fewer weak hearts in TRAIN",
        [
            NATURAL,
            *(
                Setting(name=f"weak_{round(100 * share)}", title=f"{100 * share:g} % of HFrEF", weak_share=share)
                for share in (0.5, 0.2, 0.05)
            ),
        ],
    ),
    "label_noise": (
        "Noise added to the labels of TRAIN",
        [NATURAL, *(Setting(name=f"noise_{sd}", title=f"sd {sd}", label_noise=sd) for sd in (4, 8))],
    ),
    "hidden_experts": (
        "Experts with a hidden layer",
        [
            NATURAL,
            Setting(name="hidden", title="hidden layer", hidden_experts=True, training={"learning_rate": 3e-3}),
            Setting(
                name="hidden_letter",
                title="hidden layer, floor 1",
                hidden_experts=True,
                training={"learning_rate": 3e-3, **LETTER},
            ),
        ],
    ),
    "aggregator_input": (
        "What the aggregator sees",
        [
            NATURAL,
            Setting(name="aggregator_experts", title="experts' outputs", aggregator_input="experts"),
            Setting(name="aggregator_both", title="both", aggregator_input="both"),
        ],
    ),
    "floor": (
        "Floor of the bin counts",
        [
            Setting(name="floor_1", title="1 video", training=LETTER),
            Setting(name="floor_0.1", title="0.1 % of TRAIN", training={"expert_min_count": 0.001}),
            NATURAL,
        ],
    ),
    "aggregators": ("Ways to train the aggregator", make_aggregators()),
}
"""Title and settings of each experiment. `expert_min_count` below 1 is a share of TRAIN; without it, it is 1 %."""
