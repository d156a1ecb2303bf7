"""Ejection-fraction regression as an `evaluate` metric: an adapter of `echomen_hf.metrics.ef_regression_metrics`."""

import datasets
import evaluate

from echomen_hf.metrics import ef_regression_metrics


__all__ = ["EFRegression"]

_DESCRIPTION = """
Errors of predicted left-ventricular ejection fractions (EF, in percent): mean absolute error (MAE), geometric mean of
the absolute errors (GM), root mean squared error (RMSE) and bias, over all samples and per heart-failure category
(HFrEF, HFmrEF, HFpEF), the mean of the three category MAEs, R2, and the area under the ROC curve for a reduced EF.
"""

_CITATION = """
@inproceedings{lai2024echomen,
  title     = {{EchoMEN}: Combating Data Imbalance in Ejection Fraction Regression via Multi-Expert Network},
  author    = {Lai, Song and Zhao, Mingyang and Zhao, Zhe and Chang, Shi and Yuan, Xiaohua and Liu, Hongbin and
               Zhang, Qingfu and Meng, Gaofeng},
  booktitle = {Medical Image Computing and Computer Assisted Intervention -- MICCAI 2024},
  year      = {2024},
  doi       = {10.1007/978-3-031-72083-3_58}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `float`): predicted EF in percent.
    references (`list` of `float`): reference EF in percent, in [0, 100].
    bootstrap_samples (`int`): resamples for percentile confidence intervals; 0, the default, leaves them out.
    confidence_level (`float`): coverage of the intervals, 0.95 by default; 0.90 is the 5th to 95th percentile.
    seed (`int`): seed of the resampling, 0 by default.

Returns:
    `dict` of `float`: `mae`, `gm`, `rmse`, `bias` and `n`, each also with the suffix `_hfref`, `_hfmref` and `_hfpef`;
    `balanced_mae`; `r2`; `auroc_ef_below_35`, `_40`, `_45` and `_50`; with bootstrap samples also `<key>_ci_low` and
    `<key>_ci_high`. What is undefined, such as the error of an empty category, is NaN.

Examples:

    >>> from echomen_hf.evaluation.metric_module import load_metric
    >>> metric = load_metric()
    >>> results = metric.compute(predictions=[33.0, 46.0, 58.0], references=[30.0, 45.0, 60.0])
    >>> print(results["mae"], results["mae_hfref"])
    2.0 3.0
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class EFRegression(evaluate.Metric):
    """Ejection-fraction regression metric."""

    def _info(self) -> evaluate.MetricInfo:
        # Single precision would move an EF just below a category boundary onto it.
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=features,
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        bootstrap_samples: int = 0,
        confidence_level: float = 0.95,
        seed: int = 0,
    ) -> dict[str, float]:
        return ef_regression_metrics(
            predictions,
            references,
            bootstrap_samples=bootstrap_samples,
            confidence_level=confidence_level,
            seed=seed,
        )
