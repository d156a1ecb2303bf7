"""Settings of stage 2 that are compared, by experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


__all__ = ["EXPERIMENTS", "TRAINING", "Setting"]

TRAINING: Mapping[str, Any] = {
    "num_train_epochs": 15,
    "optim": "adamw_torch",
    "learning_rate": 1e-2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "per_device_train_batch_size": 128,
    # What gradient steps converge to: then the aggregator alone decides.
    "expert_solver": "least_squares",
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
        starts_solved: Whether experts that are trained by gradients start from their solution in closed form.
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
    starts_solved: bool = False
    soft_target: float | None = None


NATURAL = Setting(name="natural", title="as it is")
WEIGHTED = {"aggregator_weight_exponent": 1.0}
LETTER = {"expert_min_count": 1}
BY_GRADIENT = {
    "expert_solver": "gradient",
    "num_train_epochs": 40,
    "learning_rate": 3e-2,
    "aggregator_learning_rate_factor": 0.1,
}
JOINT = {"expert_solver": "gradient", "aggregator_gradients": "joint"}
HIDDEN = {"expert_solver": "gradient", "learning_rate": 3e-3, "num_train_epochs": 20}


def with_weighted(*settings: Setting) -> list[Setting]:
    """Settings, each followed by itself with weights f^-1 in the aggregator's loss."""
    return [
        each
        for setting in settings
        for each in (
            setting,
            replace(
                setting,
                name=f"{setting.name}_weighted",
                title=f"{setting.title}, aggregator f^-1",
                training={**setting.training, **WEIGHTED},
            ),
        )
    ]


FLOORS = with_weighted(
    Setting(name="floor_1", title="floor 1", training=LETTER),
    Setting(name="floor_0.1", title="floor 0.1 %", training={"expert_min_count": 0.001}),
    replace(NATURAL, title="floor 1 %"),
)
INPUTS = with_weighted(
    Setting(name="sees_experts", title="sees the experts' outputs", aggregator_input="experts"),
    Setting(name="sees_both", title="sees embedding and outputs", aggregator_input="both"),
)


def make_aggregators() -> list[Setting]:
    """Ways to train the aggregator, with the floor of 1 % and with the paper's of one video."""
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("half", "aggregator f^-0.5", {"training": {"aggregator_weight_exponent": 0.5}}),
        ("soft", "soft targets", {"soft_target": 4.0}),
        ("soft_weighted", "soft targets, f^-1", {"soft_target": 4.0, "training": WEIGHTED}),
        ("joint", "then joint gradients", {"starts_solved": True, "training": JOINT}),
        ("joint_weighted", "then joint gradients, f^-1", {"starts_solved": True, "training": {**JOINT, **WEIGHTED}}),
    ]
    floors: list[tuple[str, str, dict[str, Any]]] = [("", "floor 1 %", {}), ("_letter", "floor 1", LETTER)]
    rates = [
        Setting(name=f"rate_{rate:g}", title=f"learning rate {rate:g}, floor 1 %", training={"learning_rate": rate})
        for rate in (1e-3, 1e-1)
    ]
    gradient = Setting(name="gradient", title="experts by gradient, floor 1 %", training=BY_GRADIENT)
    return [
        *(
            Setting(
                name=f"{name}{ending}",
                title=f"{title}, {floor}",
                **{**fields, "training": {**fields.get("training", {}), **changed}},
            )
            for ending, floor, changed in floors
            for name, title, fields in ways
        ),
        *rates,
        *with_weighted(gradient),
    ]


EXPERIMENTS: Mapping[str, tuple[str, list[Setting]]] = {
    "imbalance": (
        "Imbalance of TRAIN",
        with_weighted(
            NATURAL,
            *(Setting(name=f"imbalance_{n}", title=f"{n} HFpEF : 1 HFrEF", imbalance=n) for n in (5, 20, 80)),
        ),
    ),
    "weak_hearts": (
        "Fewer weak hearts in TRAIN",
        with_weighted(
            NATURAL,
            *(
                Setting(name=f"weak_{round(100 * share)}", title=f"{100 * share:g} % of HFrEF", weak_share=share)
                for share in (0.5, 0.2, 0.05)
            ),
        ),
    ),
    "label_noise": (
        "Noise added to the labels of TRAIN",
        with_weighted(
            NATURAL, *(Setting(name=f"noise_{sd}", title=f"further sd {sd}", label_noise=sd) for sd in (4, 8))
        ),
    ),
    "hidden_experts": (
        "Experts with a hidden layer",
        [
            *with_weighted(Setting(name="hidden", title="floor 1 %", hidden_experts=True, training=HIDDEN)),
            *with_weighted(
                Setting(name="hidden_letter", title="floor 1", hidden_experts=True, training={**HIDDEN, **LETTER})
            ),
        ],
    ),
    "aggregator_input": (
        "What the aggregator sees",
        [*with_weighted(replace(NATURAL, title="sees the embedding")), *INPUTS],
    ),
    "floor": ("Floor of the bin counts", FLOORS),
    "aggregators": ("Ways to train the aggregator", [*FLOORS, *INPUTS, *make_aggregators()]),
}
"""Title and settings of each experiment. `expert_min_count` below 1 is a share of TRAIN; without it, it is 1 %."""
