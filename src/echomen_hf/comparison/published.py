"""Published numbers of the EchoMEN paper (MICCAI 2024), measured on EchoNet-Dynamic."""

from __future__ import annotations

from ..model.heart_failure_category_echomen import CATEGORY_TITLES


__all__ = ["PUBLISHED_CAPTION", "PUBLISHED_TABLE_1", "PUBLISHED_TABLE_2"]

PUBLISHED_CAPTION = "As published, on EchoNet-Dynamic"

# MAE in all videos, HFrEF, HFmrEF and HFpEF, then GM likewise. `uvt` is the paper's "Reynaud et al.".
TABLE_1 = {
    "sqinv": (5.05, 7.28, 6.34, 4.52, 3.27, 4.70, 4.16, 2.99),
    "ddir": (4.68, 5.99, 5.33, 4.51, 2.96, 3.68, 3.75, 2.90),
    "focal_r": (4.13, 6.36, 5.76, 3.56, 2.57, 3.95, 3.75, 2.30),
    "ranksim": (3.97, 6.12, 5.44, 3.43, 2.49, 3.95, 3.72, 2.22),
    "echonet": (4.05, 6.26, 5.96, 3.45, 2.51, 3.74, 3.91, 2.23),
    "esfeh": (4.46, 6.67, 6.52, 3.97, 2.98, 4.72, 4.92, 2.59),
    "uvt": (5.42, 10.13, 9.91, 4.01, 3.40, 6.50, 7.94, 2.74),
    "echognn": (4.45, 6.83, 5.93, 3.93, 2.85, 4.67, 3.83, 2.54),
    "echocotr": (3.96, 6.02, 5.31, 3.47, 2.52, 3.87, 3.72, 2.24),
    "echomen": (3.93, 5.94, 5.29, 3.44, 2.44, 3.64, 3.71, 2.17),
}
TABLE_2 = {
    "echomen_plain_supcon": (4.03, 6.33, 5.33, 3.49, 2.56, 4.27, 3.74, 2.25),
    "echomen_stage_1_head": (4.02, 6.50, 5.31, 3.49, 2.53, 4.35, 3.72, 2.23),
    "echomen_category_experts": (4.36, 5.97, 5.75, 3.97, 2.76, 3.69, 3.81, 2.55),
    "echomen_mean_of_experts": (4.01, 5.96, 4.99, 3.59, 2.49, 3.66, 3.40, 2.26),
    "echomen": TABLE_1["echomen"],
}

COLUMNS = [(metric, category) for metric in ("mae", "gm") for category in CATEGORY_TITLES]

# Errors by method, then by metric and category.
PUBLISHED_TABLE_1, PUBLISHED_TABLE_2 = (
    {method: dict(zip(COLUMNS, values, strict=True)) for method, values in table.items()}
    for table in (TABLE_1, TABLE_2)
)
