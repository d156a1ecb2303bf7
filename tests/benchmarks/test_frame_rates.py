from benchmarks.frame_rates import RATES, errors_at_rates, rates_table
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.inference import load_checkpoint


def test_hearts_are_read_at_every_rate():
    errors = errors_at_rates(*load_checkpoint(SMALL_MODEL_FOLDER), "wide", num_videos=6)
    assert list(errors) == ["8", "10", "15", "25", "50"]
    for of_rate in errors.values():
        assert abs(of_rate["bias"]) < of_rate["balanced_mae"] < 10
    assert errors["8"] != errors["10"]


def test_table_has_error_and_bias():
    errors = {f"{rate:g}": {"balanced_mae": 3.0 + number, "bias": -0.25} for number, rate in enumerate(RATES)}
    cells = [cell.strip() for cell in rates_table({"wide": errors}).splitlines()[-1].split("|")[1:-1]]
    assert cells == [
        "machines as in training",
        "3.00 (-0.2)",
        "4.00 (-0.2)",
        "5.00 (-0.2)",
        "6.00 (-0.2)",
        "7.00 (-0.2)",
    ]
