import shutil

import numpy as np
import pandas as pd
import pytest

from echomen_hf.comparison import report
from echomen_hf.comparison.record import read_record
from echomen_hf.comparison.results import RESULT_COLUMNS, long_table, read_finished_cells, split_key
from echomen_hf.comparison.variants import make_sweep
from helpers.documents import ROOT


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("mae", ("mae", "all")),
        ("mae_hfref", ("mae", "hfref")),
        ("gm_hfmref_ci_low", ("gm_ci_low", "hfmref")),
        ("mae_ci_high", ("mae_ci_high", "all")),
        ("balanced_mae", ("balanced_mae", "all")),
        ("auroc_ef_below_35", ("auroc_ef_below_35", "all")),
        ("n_hfpef", ("n", "hfpef")),
    ],
)
def test_name_of_a_metric(key, parts):
    assert split_key(key) == parts


def test_long_table(make_cell):
    table = long_table([make_cell("echonet", 3, [21.0, 62.0], [20.0, 60.0])])
    assert tuple(table.columns) == RESULT_COLUMNS
    values = table.set_index(["category", "metric"])
    assert values.loc[("all", "mae"), "value"] == 1.5
    assert values.loc[("hfref", "mae"), "value"] == 1
    assert values.loc[("all", "gm"), "value"] == pytest.approx(2**0.5)
    assert (values.loc["all", "n"] == 2).all() and (values.loc["hfpef", "n"] == 1).all()
    assert set(table["method"]) == {"echonet"} and set(table["seed"]) == {3} and set(table["protocol"]) == {"windows"}
    assert "n" not in set(table["metric"])
    assert list(dict.fromkeys(table["category"])) == ["all", "hfref", "hfmref", "hfpef"]


def test_category_without_videos(make_cell):
    table = long_table([make_cell("echonet", 0, [21.0, 62.0], [20.0, 60.0])]).set_index(["category", "metric"])
    assert table.loc[("hfmref", "mae"), "n"] == 0
    assert np.isnan(table.loc[("hfmref", "mae"), "value"])
    assert np.isnan(table.loc[("all", "balanced_mae"), "value"])


def test_cells_without_their_folders_are_the_same_cells(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    shutil.rmtree(folder / "cells")
    whole, compact = (read_finished_cells(place, ["echonet"]) for place in (finished, folder))
    assert len(whole) == len(compact) == 8
    for one, other in zip(whole, compact):
        assert (one.method, one.seed, one.cost) == (other.method, other.seed, other.cost)
        np.testing.assert_equal(one.document, other.document)
        pd.testing.assert_frame_equal(one.predictions, other.predictions, check_exact=True)


@pytest.mark.parametrize(
    "run", ["6000_videos", "10_epochs", "20_epochs", "1500_videos", "more_videos", "no_label_noise"]
)
def test_committed_tables_follow_from_the_committed_cells(run, make_arguments, tmp_path, monkeypatch):
    """What the pages show is made again, to the byte, from the two Parquet files and the record of each run."""
    monkeypatch.setattr(report, "save_comparison_figures", lambda *_, **__: [])
    committed, folder = ROOT / "docs" / "results" / run, tmp_path / "results"
    folder.mkdir()
    for name in ("comparison.json", "cells.parquet", "predictions.parquet"):
        shutil.copy(committed / name, folder)
    settings = read_record(folder)["settings"]
    args = make_arguments(**settings["training"])
    names = [path.stem.removeprefix("sweep_") for path in committed.glob("sweep_*.md") if path.stem != "sweep_best"]
    # In this order, the settings were tried: of equal ones, the first is the best.
    order = ["lambda", "distance_scale", "aggregator_weight", "aggregator", "experts"]
    sweeps = {name: make_sweep(name, args, settings["model_config"]) for name in sorted(names, key=order.index)}
    report.build_report(folder, sweeps=sweeps, published=run == "1500_videos")

    tables = [path.name for path in committed.glob("*.md")]
    for name in [*tables, "results.csv", "validation.csv", "cost.csv"]:
        assert (folder / name).read_bytes() == (committed / name).read_bytes(), name
    for path in committed.glob("significance*.csv"):
        # Processors add up in different orders.
        pd.testing.assert_frame_equal(pd.read_csv(folder / path.name), pd.read_csv(path), rtol=1e-12, atol=1e-12)


def test_the_page_shows_the_committed_tables():
    folder = ROOT / "docs" / "results"
    page = (folder / "README.md").read_text()
    tables = ("6000_videos/table1.md", "10_epochs/table1.md", "6000_videos/table2.md")
    made = "\n\n".join((folder / name).read_text() for name in tables)
    shown = [block for block in page.split("\n\n") if block.startswith("| Method")]
    assert len(shown) == 4
    assert all(block in made for block in shown)
