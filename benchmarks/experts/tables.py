"""Tables of the experiments: errors of every head, and tests against the refitted head that is best on VAL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.experts.heads import REFITTED
from benchmarks.experts.settings import Setting
from echomen_hf.comparison import two_way_test
from echomen_hf.evaluation.report import MISSING_VALUE, markdown_table
from echomen_hf.labels import HEART_FAILURE_CATEGORIES, category_masks
from echomen_hf.model.heart_failure_category_echomen import CATEGORY_TITLES


__all__ = ["Cell", "decision", "experiment_rows", "experiment_table", "val_error"]

HEADS = ("EchoMEN", "mean of experts", "best expert on VAL", "oracle", "stage-1 head", *REFITTED.values())


class Cell(NamedTuple):
    """Predictions of one setting with one encoder, by split and head, see `predict_all`."""

    seed: int
    predictions: Mapping[str, Mapping[str, NDArray[np.float64]]]
    labels: Mapping[str, NDArray[np.float64]]

    def errors(self, split: str, head: str) -> NDArray[np.float64]:
        """Absolute errors of a head, (N,). The best expert is chosen on VAL."""
        if head == "best expert on VAL":
            experts = [name for name in self.predictions[split] if name.startswith("expert ")]
            head = min(experts, key=lambda name: balanced(self.errors("validation", name), self.labels["validation"]))
        return np.abs(self.predictions[split][head] - self.labels[split])


def by_category(errors: NDArray[np.float64], labels: NDArray[np.float64]) -> list[float]:
    """MAE of every category."""
    masks = category_masks(labels)
    return [float(errors[..., masks[category]].mean()) for category in HEART_FAILURE_CATEGORIES]


def balanced(errors: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Mean of the MAE of the categories."""
    return float(np.mean(by_category(errors, labels)))


def val_error(cells: Sequence[Cell], head: str) -> float:
    """Balanced MAE on VAL, averaged over seeds."""
    return float(np.mean([balanced(cell.errors("validation", head), cell.labels["validation"]) for cell in cells]))


def best_refitted(cells: Sequence[Cell]) -> str:
    """Refitted head with the least balanced MAE on VAL."""
    return min(REFITTED.values(), key=lambda head: val_error(cells, head))


def test_of_heads(cells: Sequence[Cell], head: str, others: Sequence[Cell], other: str) -> Any:
    """Two-way test of one head against another on TEST, by the balanced MAE, over the seeds in pairs."""
    masks = category_masks(cells[0].labels["test"])
    pairs = zip(cells, others, strict=True)
    differences = np.stack([mine.errors("test", head) - theirs.errors("test", other) for mine, theirs in pairs])
    return two_way_test([differences[:, masks[category]] for category in HEART_FAILURE_CATEGORIES])


def experiment_rows(settings: Sequence[Setting], cells: Mapping[str, Sequence[Cell]]) -> list[dict[str, Any]]:
    """Numbers of the finished settings, a row per setting and head."""
    rows = []
    for setting in settings:
        finished = cells.get(setting.name, [])
        if not finished:
            continue
        refitted = best_refitted(finished)
        weights = np.stack([cell.predictions["test"]["weights"] for cell in finished])  # (S, N, M)
        for head in HEADS:
            errors = [cell.errors("test", head) for cell in finished]
            labels = finished[0].labels["test"]
            row: dict[str, Any] = {
                "setting": setting.title,
                "head": head,
                "seeds": [cell.seed for cell in finished],
                "balanced_mae": [balanced(of_seed, labels) for of_seed in errors],
                "mae_by_category": [by_category(of_seed, labels) for of_seed in errors],
                "validation_balanced_mae": val_error(finished, head),
            }
            if head == "EchoMEN":
                test = test_of_heads(finished, head, finished, refitted)
                row |= {
                    "weights": weights.mean(axis=(0, 1)).tolist(),
                    "weights_sd": weights.std(axis=1).mean(axis=0).tolist(),
                    "against": refitted,
                    "difference": test.mean,
                    "p_value": test.p_value,
                }
            rows.append(row)
    return rows


def experiment_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown table of an experiment. A head that a setting does not change is shown once."""
    categories = [f"MAE {CATEGORY_TITLES[name]}" for name in HEART_FAILURE_CATEGORIES]
    header = ["Setting", "Head", "VAL", "Balanced MAE", *categories, "Weights (sd over videos)", "p"]
    texts, shown = [], set()
    for row in rows:
        numbers = (row["head"], *row["balanced_mae"])
        if row["head"] != "EchoMEN" and numbers in shown:
            continue
        shown.add(numbers)
        errors = np.column_stack([row["balanced_mae"], row["mae_by_category"]])  # (S, 4)
        weights, p_value = MISSING_VALUE, MISSING_VALUE
        if "weights" in row:
            pairs = zip(row["weights"], row["weights_sd"], strict=True)
            weights = ", ".join(f"{mean:.2f} ({sd:.2f})" for mean, sd in pairs)
            p_value = f"{row['p_value']:.3f} ({row['difference']:+.2f})"
        texts.append(
            [
                row["setting"],
                row["head"],
                f"{row['validation_balanced_mae']:.2f}",
                *(mean_and_sd(column) for column in errors.T),
                weights,
                p_value,
            ]
        )
    seeds = sorted({tuple(row["seeds"]) for row in rows})
    return (
        f"## {title}\n\n{markdown_table(header, texts)}\n\n"
        "Mean ± standard deviation over encoders "
        f"(seeds {'; '.join(', '.join(map(str, each)) for each in seeds)}). VAL: balanced MAE on VAL. "
        "p: two-way test of the balanced MAE against the refitted head that is best on VAL, with the difference.\n"
    )


def mean_and_sd(values: NDArray[np.float64]) -> str:
    """Mean and sample standard deviation over seeds."""
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def decision(settings: Sequence[Setting], cells: Mapping[str, Sequence[Cell]]) -> dict[str, Any]:
    """Test the way that is best on VAL against the refitted head that is best on VAL, once, on TEST.

    `single` compares it with the best expert of the same training, which only experts that work together can beat.
    """
    finished = [setting for setting in settings if cells.get(setting.name)]
    way = min(finished, key=lambda setting: val_error(cells[setting.name], "EchoMEN"))
    choices = [(setting, head) for setting in finished for head in REFITTED.values()]
    setting, head = min(choices, key=lambda choice: val_error(cells[choice[0].name], choice[1]))
    test = test_of_heads(cells[way.name], "EchoMEN", cells[setting.name], head)
    single = test_of_heads(cells[way.name], "EchoMEN", cells[way.name], "best expert on VAL")
    labels = cells[way.name][0].labels["test"]
    weights = np.concatenate([cell.predictions["test"]["weights"] for cell in cells[way.name]])
    return {
        "seeds": [cell.seed for cell in cells[way.name]],
        "ways": len(finished),
        "way": way.title,
        "refitted": f"{head} ({setting.title})",
        "validation_balanced_mae": [val_error(cells[way.name], "EchoMEN"), val_error(cells[setting.name], head)],
        "balanced_mae": [
            float(np.mean([balanced(cell.errors("test", "EchoMEN"), labels) for cell in cells[way.name]])),
            float(np.mean([balanced(cell.errors("test", head), labels) for cell in cells[setting.name]])),
        ],
        "difference": test.mean,
        "interval": [test.low, test.high],
        "p_value": test.p_value,
        "weights": weights.mean(axis=0).tolist(),
        "single": {"difference": single.mean, "interval": [single.low, single.high], "p_value": single.p_value},
    }
