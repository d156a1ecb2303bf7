import numpy as np
import pandas as pd
import pytest

from echomen_hf.evaluation.group_errors import errors_by_column


def table(errors, references=None):
    references = np.full(len(errors), 50.0) if references is None else np.asarray(references)
    names = [f"video{i}" for i in range(len(errors))]
    return pd.DataFrame({"FileName": names, "EF": references, "EF_pred": references + np.asarray(errors)})


def rows(**columns):
    number = len(next(iter(columns.values())))
    known = {"video": "", "split": "test", "ejection_fraction": 50.0, "fps": 50.0}
    return [
        {"file_name": f"video{i}", **known, **{name: values[i] for name, values in columns.items()}}
        for i in range(number)
    ]


def test_errors_of_every_group():
    predictions = table([1.0, -3.0] * 10 + [5.0] * 10)
    videos = rows(Sex=["F"] * 20 + ["M"] * 10)
    (sex,) = errors_by_column(predictions, videos[::-1])
    assert sex.column == "Sex"
    assert [(group, metrics["n"], metrics["mae"], metrics["bias"]) for group, metrics in sex.groups.items()] == [
        ("F", 20, 2.0, -1.0),
        ("M", 10, 5.0, 5.0),
    ]


def test_intervals_are_those_of_the_group():
    (sex,) = errors_by_column(table([2.0] * 20), rows(Sex=["F", "M"] * 10), bootstrap_samples=20, seed=1)
    assert (sex.groups["F"]["mae_ci_low"], sex.groups["F"]["mae_ci_high"]) == (2.0, 2.0)


def test_small_groups_and_unknown_values_show_no_errors():
    (sex,) = errors_by_column(table([1.0] * 30), rows(Sex=["F"] * 12 + ["M"] * 9 + ["", "NaN", "none"] + ["M"] * 6))
    assert list(sex.groups) == ["F", "M", "unknown"]
    assert sex.groups["unknown"] == {"n": 3}
    assert sex.groups["M"]["n"] == 15


def test_numbers_are_cut_into_fewer_parts_where_quartiles_would_be_small():
    (age,) = errors_by_column(table([1.0] * 25), rows(Age=[str(20 + i) for i in range(25)]))
    assert {group: metrics["n"] for group, metrics in age.groups.items()} == {"20 to 32": 13, "33 to 44": 12}


def test_numbers_are_cut_at_their_quartiles():
    ages = [str(20 + i) for i in range(40)]
    errors = np.repeat([1.0, 2.0, 3.0, 4.0], 10)
    order = np.random.default_rng(0).permutation(40)
    videos = rows(Age=ages)
    (age,) = errors_by_column(table(errors), [videos[i] for i in order])
    assert {group: metrics["mae"] for group, metrics in age.groups.items()} == {
        "20 to 29": 1.0,
        "30 to 39": 2.0,
        "40 to 49": 3.0,
        "50 to 59": 4.0,
    }
    assert list(age.groups)[0] == "20 to 29"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([f"P{i}" for i in range(30)], "it has 30 different values"),
        (["north"] * 30, "it has fewer than two different values"),
        ([""] * 30, "it has fewer than two different values"),
    ],
)
def test_columns_without_groups_are_left_out(values, reason):
    (column,) = errors_by_column(table([1.0] * 30), rows(Column=values))
    assert (column.groups, column.omitted) == ({}, reason)


def test_only_videos_with_a_reference_count():
    references = [50.0] * 10 + [np.nan] * 10
    (sex,) = errors_by_column(table([1.0] * 20, references), rows(Sex=["F", "M"] * 10))
    assert sex.groups == {"F": {"n": 5}, "M": {"n": 5}}
    assert errors_by_column(table([1.0] * 20), rows(ejection_fraction=[50.0] * 20)) == []
