import pytest

from echomen_hf.comparison import SWEEPS, select_methods
from echomen_hf.comparison.variants import make_sweep
from echomen_hf.methods import list_methods


def names(variants):
    return [variant.name for variant in variants]


def test_methods_by_name_group_and_all_in_the_order_of_tables():
    assert names(select_methods(["echomen,echonet", "sqinv"])) == ["sqinv", "echonet", "echomen"]
    assert names(select_methods(["ablation"])) == list_methods("ablation")
    assert names(select_methods(["all", "echonet"])) == list_methods()


def test_unknown_method_lists_what_exists():
    with pytest.raises(
        ValueError, match="no method 'ranksin'. Did you mean 'ranksim'\\? Methods: sqinv, .*groups: all"
    ):
        select_methods(["echomen", "ranksin"])


def test_unknown_sweep_lists_what_exists(make_arguments):
    with pytest.raises(ValueError, match="no sweep 'expert'. Did you mean 'experts'\\? Sweeps: experts, lambda"):
        make_sweep("expert", make_arguments(), {})


def test_numbers_of_experts_share_stage_1(make_arguments):
    variants = make_sweep("experts", make_arguments(), {})
    assert [variant.value for variant in variants] == [1, 2, 3, 5]
    assert names(variants) == ["echomen_num_experts_1", "echomen_num_experts_2", "echomen", "echomen_num_experts_5"]
    assert [variant.needs for variant in variants] == ["echomen", "echomen", None, "echomen"]
    assert variants[0].method.make_config({"num_experts": 4}).num_experts == 1


def test_options_of_stage_1_are_trained_anew(make_arguments):
    variants = make_sweep("lambda", make_arguments(contrastive_weight=2.0), {})
    assert [variant.value for variant in variants] == [0.0, 0.1, 0.5, 1.0, 2.0, 5.0]
    own = {variant.value: variant for variant in variants}
    assert own[2.0].name == "echomen"
    assert own[0.1].name == "echomen_contrastive_weight_0.1"
    assert own[0.1].needs is None
    # A recipe does not override what is swept.
    assert own[0.1].method.training_arguments(make_arguments(contrastive_weight=2.0)).contrastive_weight == 0.1


def test_setting_that_is_a_registered_ablation_is_that_one(make_arguments):
    variants = {variant.value: variant.name for variant in make_sweep("distance", make_arguments(), {})}
    assert variants["none"] == "echomen_plain_supcon"
    assert variants["l1"] == "echomen"
    assert variants["cdf"] == "echomen_label_distance_cdf"


def test_routing_trains_nothing(make_arguments):
    variants = make_sweep("top_k", make_arguments(), {"num_experts": 3})
    assert names(variants) == ["echomen_expert_top_k_1", "echomen_expert_top_k_2", "echomen"]
    assert [variant.is_trained for variant in variants] == [False, False, True]
    assert variants[0].needs == "echomen"
    assert names(make_sweep("top_k", make_arguments(), {"num_experts": 1})) == ["echomen"]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_value_is_valid(name, make_arguments):
    for variant in make_sweep(name, make_arguments(), {}):
        variant.method.make_config({})
        variant.method.training_arguments(make_arguments())
