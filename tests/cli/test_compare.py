import pandas as pd
import pytest
import yaml

from echomen_hf.cli import invoke
from echomen_hf.comparison import cell_run
from echomen_hf.methods import get_method, list_methods


@pytest.fixture
def main(recipe, echonet_dir, tmp_path):
    def run(*flags):
        common = ["--recipe", str(recipe), "--data_dir", str(echonet_dir), "--output", str(tmp_path / "out")]
        return invoke(["compare", *common, "--jobs", "0", "--threads", "1", *flags])

    return run


FAST = ["--seeds", "5", "--protocol", "center", "--bootstrap_samples", "20", "--report_to", "none"]


def test_tables_and_status(main, tmp_path, capsys):
    assert main("--methods", "echonet,sqinv", *FAST, "--frame_cache", str(tmp_path / "frames")) == 0
    printed = capsys.readouterr().out
    assert "| SQInv " in printed and "SYNTHETIC" in printed
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(results["method"]) == {"echonet", "sqinv"}
    assert set(results["seed"]) == {5} and set(results["protocol"]) == {"center"}
    assert (tmp_path / "frames" / "index.jsonl").is_file()


def test_status_of_a_failing_cell(main, monkeypatch, capsys):
    def fit_method(method, *_, **__):
        raise FloatingPointError(f"{method.name} is not finite")

    monkeypatch.setattr(cell_run, "fit_method", fit_method)
    assert main("--methods", "echonet", *FAST) == 1
    captured = capsys.readouterr()
    assert "error: echonet, seed 5 failed" in captured.err


def test_unknown_method(main):
    with pytest.raises(ValueError, match="There is no method 'echonot'. Did you mean 'echonet'"):
        main("--methods", "echonot", *FAST)


def test_unknown_flag(main):
    with pytest.raises(ValueError, match="Unknown argument --sedes"):
        main("--methods", "echonet", "--sedes", "3")


def test_committed_recipe_is_valid_for_every_method():
    from echomen_hf.comparison import read_settings, select_methods
    from echomen_hf.comparison.rules import require_equal_steps
    from echomen_hf.training.recipes import RECIPES_FOLDER

    recipe = RECIPES_FOLDER / "compare.yaml"
    settings = read_settings("compare", ["--data_dir", "data"])
    variants = select_methods(["all"])
    assert len(settings.check(variants)) == len(list_methods())
    assert set(require_equal_steps(settings, variants, 1500).values()) == {5 * 94}
    for name in yaml.safe_load(recipe.read_text())["method_model_config"]:
        assert not get_method(name).shares_encoder
