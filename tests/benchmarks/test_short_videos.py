from itertools import islice

from benchmarks.short_videos import RULES, SECONDS, errors_of_rules, rules_table, simulated_videos
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.inference import load_checkpoint


def test_blank_frames_cost_more_than_repeated_ones():
    model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
    errors = errors_of_rules(model, processor, islice(simulated_videos(processor, 3, seed=0), 3))
    assert list(errors) == list(RULES)
    assert [list(of_rule) for of_rule in errors.values()] == [[f"{seconds:g}" for seconds in SECONDS]] * len(RULES)
    assert errors["zeros"]["0.6"] > 2 * errors["back_and_forth"]["0.6"]
    assert processor.short_videos == "back_and_forth"


def test_table_has_the_mean_of_each_rule():
    table = rules_table({"last_frame": {"0.4": 1.0, "0.6": 2.0, "0.8": 3.0, "1": 4.0, "1.2": 6.0}})
    assert [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]] == [
        "last frame", "1.00", "2.00", "3.00", "4.00", "6.00", "3.20",
    ]  # fmt: skip
