import re
from dataclasses import replace

import pytest
import torch

import echomen_hf.methods
from echomen_hf.methods import get_method, list_methods
from echomen_hf.methods.registry import REGISTRY
from echomen_hf.model.modeling_echomen import EchoMENOutput
from helpers.documents import read_page


class TestLookup:
    @pytest.mark.parametrize("name", list_methods())
    def test_methods_carry_the_name_that_they_are_listed_under(self, name):
        method = get_method(name)
        assert method.name == name
        assert method.title
        assert method.source

    def test_titles_and_groups(self):
        assert len({get_method(name).title for name in list_methods()}) == len(list_methods())
        loss_side = ["sqinv", "ddir", "focal_r", "ranksim", "echonet"]
        assert list_methods("rival") == [*loss_side, "esfeh", "uvt", "echognn", "echocotr"]
        networks = [name for name in list_methods() if not get_method(name).shares_encoder]
        assert networks == ["uvt", "echognn", "echocotr", *list_methods("encoder")]
        assert len(list_methods("encoder")) == 6
        newer = ["adacon", "rank_n_contrast", "balanced_mse", "dist_loss", "srl", "group_dir"]
        assert list_methods("newer") == newer
        assert list_methods("paper") == ["echomen"]
        assert len(list_methods("ablation")) == 4

    def test_unknown_name_lists_what_exists(self):
        with pytest.raises(ValueError, match=r"no method 'rank_sim'\. Did you mean 'ranksim'\? Methods: sqinv, "):
            get_method("rank_sim")

    def test_unknown_option_lists_what_exists(self):
        with pytest.raises(ValueError, match="'focal_r' has no option betta; its options are beta, gamma, activation"):
            get_method("focal_r").make_trainer({"betta": 1.0})
        with pytest.raises(ValueError, match="'echomen' has no option weight; .* training arguments"):
            get_method("echomen").make_trainer({"weight": 1.0})

    def test_defaults_of_options_are_those_of_the_publications(self):
        assert get_method("focal_r").options == {"beta": 0.2, "gamma": 1.0, "activation": "sigmoid", "error": "l1"}
        assert get_method("ranksim").options == {"weight": 100.0, "interpolation": 2.0, "bin_width": 1.0}
        ddir = get_method("ddir").options
        assert (ddir["lds_kernel_size"], ddir["lds_sigma"]) == (5, 2.0)
        assert (ddir["fds_momentum"], ddir["fds_start_update"], ddir["fds_start_smooth"]) == (0.9, 0, 1)


class TestTrainingArguments:
    def test_what_makes_the_method_is_not_overridden(self, make_arguments):
        args = get_method("echonet").training_arguments(make_arguments(stage="both", num_views=3))
        assert (args.stage, args.num_views) == ("1", 1)
        args = get_method("echomen_plain_supcon").training_arguments(make_arguments(label_distance="cdf"))
        assert (args.stage, args.num_views, args.label_distance) == ("both", 2, "none")

    def test_shared_schedule_is_left_alone(self, make_arguments):
        shared = make_arguments(num_train_epochs=7, learning_rate=0.3, optim="adamw_torch")
        for name in list_methods():
            args = get_method(name).training_arguments(shared)
            assert (args.num_train_epochs, args.learning_rate, args.optim) == (7, 0.3, "adamw_torch")

    def test_published_schedule(self, make_arguments):
        shared = make_arguments(
            num_train_epochs=7, optim="adamw_torch", lr_scheduler_type="cosine", stage2_learning_rate=0.5
        )
        args = get_method("echonet").training_arguments(shared, published_schedule=True)
        assert (args.num_train_epochs, args.lr_decay_epochs, args.optim, args.optim_args) == (
            45,
            15,
            "sgd",
            "momentum=0.9",
        )
        args = get_method("echomen").training_arguments(shared, published_schedule=True)
        assert (args.num_train_epochs, args.stage2_num_train_epochs, args.lr_decay_epochs) == (40, 20, 10)
        assert args.for_stage(2, "x").learning_rate == 1e-4

    @pytest.mark.parametrize("chosen", [None, "balanced_mae"])
    def test_final_models_are_chosen_by_one_metric(self, make_arguments, chosen):
        shared = make_arguments(stage2_metric_for_best_model=chosen)
        for name in list_methods():
            method = get_method(name)
            args = method.training_arguments(shared)
            last = args.for_stage(args.stages[-1], "x")
            expected = "mse" if name == "echomen_stage_1_head" else chosen or "mae"
            assert last.metric_for_best_model == expected, name
            assert last.greater_is_better is False, name

    def test_metric_that_was_asked_for_is_kept(self, make_arguments):
        args = get_method("echonet").training_arguments(make_arguments(metric_for_best_model="balanced_mae"))
        assert args.metric_for_best_model == "balanced_mae"


class TestGuide:
    """The example of `docs/adding_a_method.md` does what the page says."""

    @pytest.fixture
    def huber(self):
        blocks = re.findall(r"```python\n(.*?)```", read_page("docs/adding_a_method.md"), flags=re.DOTALL)
        namespace = {}
        exec(compile(next(block for block in blocks if "HUBER = " in block), "huber.py", "exec"), namespace)
        return namespace["HUBER"]

    def test_loss_worked_by_hand(self, huber):
        loss = huber.loss(None, delta=2.0)
        value, _ = loss(None, EchoMENOutput(regression=torch.tensor([51.0, 60.0])), torch.tensor([50.0, 50.0]), 1)
        assert value.item() == pytest.approx((0.5 * 1 + 2 * (10 - 1)) / 2)

    def test_trains_once_it_is_registered(self, huber, run, monkeypatch):
        monkeypatch.setitem(REGISTRY, "huber", ("losses.huber", "HUBER"))
        module = type(echomen_hf.methods)("echomen_hf.methods.losses.huber")
        module.HUBER = huber
        monkeypatch.setitem(__import__("sys").modules, "echomen_hf.methods.losses.huber", module)
        assert "huber" in list_methods("newer")
        model = run("huber", options={"delta": 8.0})
        assert all(parameter.isfinite().all() for parameter in model.parameters())

    def test_other_trainers_need_no_loss(self, huber):
        bare = replace(huber, loss=None)
        assert bare.make_trainer() is bare.trainer_class
