import pytest
import torch

from echomen_hf.training import DataArguments, EchoMENTrainingArguments, ModelArguments
from echomen_hf.training.fitting import COMPARED_ARGUMENTS


def test_defaults_are_the_paper(make_arguments, tmp_path):
    args = EchoMENTrainingArguments(output_dir=str(tmp_path), use_cpu=True, stage="both")
    assert (args.optim, args.optim_args, args.learning_rate, args.weight_decay) == ("sgd", "momentum=0.9", 1e-4, 1e-4)
    assert (args.lr_decay_epochs, args.lr_decay_factor, args.per_device_train_batch_size) == (10, 0.1, 20)
    assert (args.contrastive_weight, args.contrastive_temperature, args.label_distance) == (0.5, 0.1, "l1")
    first, second = args.for_stage(1, "one"), args.for_stage(2, "two")
    assert (first.num_train_epochs, first.metric_for_best_model, first.greater_is_better) == (40, "mse", False)
    assert (second.num_train_epochs, second.metric_for_best_model, second.greater_is_better) == (20, "mae", False)
    assert (first.output_dir, second.output_dir) == ("one", "two")
    assert args.stages == (1, 2)


def test_stage_2_takes_its_own_values_where_given(make_arguments):
    args = make_arguments(
        optim="adamw_torch", learning_rate=3e-3, stage2_learning_rate=1e-2, stage2_per_device_train_batch_size=64
    )
    second = args.for_stage(2, "two")
    assert (second.learning_rate, second.per_device_train_batch_size, second.optim) == (1e-2, 64, "adamw_torch")
    first = args.for_stage(1, "one")
    assert (first.learning_rate, first.per_device_train_batch_size, first.optim_args) == (3e-3, 6, None)


def test_another_optimiser_of_stage_2_does_not_inherit_options(make_arguments):
    second = make_arguments(stage2_optim="adamw_torch").for_stage(2, "two")
    assert (second.optim, second.optim_args) == ("adamw_torch", None)


def test_chosen_metric_is_kept_in_both_stages(make_arguments):
    args = make_arguments(metric_for_best_model="balanced_mae", greater_is_better=False)
    assert args.for_stage(2, "two").metric_for_best_model == "balanced_mae"
    both = make_arguments(stage="both", metric_for_best_model="mae", greater_is_better=False)
    assert [both.for_stage(stage, "out").metric_for_best_model for stage in (1, 2)] == ["mae", "mae"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": 3}, "`stage` must be one of 1, 2, both"),
        ({"contrastive_temperature": 0.0}, "contrastive_temperature"),
        ({"contrastive_weight": -1.0}, "contrastive_weight"),
        ({"label_distance": "l3"}, "label_distance"),
        ({"aggregator_gradients": "some"}, "aggregator_gradients"),
        ({"aggregator_weight_exponent": -0.5}, "aggregator_weight_exponent"),
        ({"num_views": 0}, "num_views"),
        ({"early_stopping_patience": 2, "load_best_model_at_end": False}, "early_stopping_patience"),
    ],
)
def test_values_that_cannot_work_are_refused(make_arguments, changes, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(**changes)


def test_model_arguments():
    assert ModelArguments(model_config='{"num_experts": 5}').model_config == {"num_experts": 5}
    with pytest.raises(ValueError, match="not valid JSON"):
        ModelArguments(model_config="{num_experts: 5")
    with pytest.raises(ValueError, match="`model_config` holds fields by name, such as .*, got 2.5"):
        ModelArguments(model_config="2.5")
    with pytest.raises(ValueError, match="leave out `model_config`"):
        ModelArguments(model="runs/demo", model_config={"num_experts": 5})


def test_data_arguments_scan_headers_by_default():
    assert DataArguments(data_dir="EchoNet-Dynamic").validate_data == "headers"


class TestMetricForBestModel:
    def test_papers_choice_per_stage(self):
        both = EchoMENTrainingArguments(stage="both")
        assert both.for_stage(1, "one").metric_for_best_model == "mse"
        assert both.for_stage(2, "two").metric_for_best_model == "mae"
        assert both.for_stage(2, "two").greater_is_better is False

    def test_stage_2_may_have_its_own(self):
        both = EchoMENTrainingArguments(stage="both", stage2_metric_for_best_model="balanced_mae")
        assert both.for_stage(1, "one").metric_for_best_model == "mse"
        assert both.for_stage(2, "two").metric_for_best_model == "balanced_mae"
        assert both.for_stage(2, "two").greater_is_better is False
        again = both.for_stage(2, "two").replace(dataloader_num_workers=0)
        assert (again.metric_for_best_model, again.greater_is_better) == ("balanced_mae", False)

    @pytest.mark.parametrize(
        ("name", "greater"), [("balanced_mae", False), ("eval_mae_hfref", False), ("loss", False), ("r2", True)]
    )
    def test_less_error_is_better(self, name, greater):
        for stage in ("1", "2"):
            assert EchoMENTrainingArguments(stage=stage, metric_for_best_model=name).greater_is_better is greater

    def test_direction_that_is_given_stays(self):
        args = EchoMENTrainingArguments(metric_for_best_model="mae", greater_is_better=True)
        assert args.greater_is_better is True


class TestBatch:
    def test_processes_and_accumulation_steps_share_the_papers_batch(self, make_arguments, monkeypatch):
        monkeypatch.setattr(EchoMENTrainingArguments, "world_size", 2)
        args = make_arguments(per_device_train_batch_size=None, gradient_accumulation_steps=5)
        assert args.per_device_train_batch_size == 2
        larger = args.replace(total_train_batch_size=40)
        assert (larger.per_device_train_batch_size, args.replace(seed=3).per_device_train_batch_size) == (4, 2)

    def test_what_does_not_divide_is_refused_with_the_nearest_that_does(self, make_arguments, monkeypatch):
        monkeypatch.setattr(EchoMENTrainingArguments, "world_size", 8)
        with pytest.raises(
            ValueError, match="A step of 20 videos .* 8 processes.*`--total_train_batch_size` to 16 or 24"
        ):
            make_arguments(per_device_train_batch_size=None)
        with pytest.raises(ValueError, match="to 8 or 16, or"):
            make_arguments(per_device_train_batch_size=None, total_train_batch_size=9)
        with pytest.raises(ValueError, match="to 8, or"):
            make_arguments(per_device_train_batch_size=None, total_train_batch_size=0)

    def test_two_settings_that_contradict_each_other_are_refused(self, make_arguments):
        with pytest.raises(ValueError, match="6 makes steps of 6 videos .* is 20: give one"):
            make_arguments(total_train_batch_size=20)
        assert make_arguments(total_train_batch_size=6).per_device_train_batch_size == 6
        assert make_arguments().replace(total_train_batch_size=20).per_device_train_batch_size == 20

    def test_stage_2_has_the_batch_of_stage_1_or_its_own(self, make_arguments):
        shared = {"per_device_train_batch_size": None, "total_train_batch_size": 24}
        assert make_arguments(**shared).for_stage(2, "two").per_device_train_batch_size == 24
        own = make_arguments(**shared, stage2_per_device_train_batch_size=64).for_stage(2, "two")
        assert own.per_device_train_batch_size == own.replace(seed=3).per_device_train_batch_size == 64


def test_one_process_trains_on_one_gpu_and_names_the_launcher(make_arguments, monkeypatch):
    messages = []
    monkeypatch.setattr("echomen_hf.training.arguments.logger.warning", messages.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    args = make_arguments(use_cpu=False)
    assert (args.n_gpu, args.train_batch_size, args.world_size) == (1, 6, 1)
    [message] = messages
    assert "`accelerate launch --num_processes 8`" in message
    assert make_arguments(use_cpu=True).n_gpu == 0


@pytest.mark.parametrize("given", ["bf16", "fp16", "no"])
def test_precision_given_to_the_launcher_is_that_of_the_run(make_arguments, monkeypatch, given):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", given)
    args = make_arguments()
    assert (args.bf16, args.fp16, args.mixed_precision) == (given == "bf16", given == "fp16", given)
    recorded = args.for_stage(1, "one").to_dict()
    assert (recorded["bf16"], recorded["fp16"]) == (args.bf16, args.fp16)
    assert {"bf16", "fp16"} <= COMPARED_ARGUMENTS


def test_precision_that_the_network_does_not_have_is_refused(make_arguments, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ValueError, match="'fp8'.*choose bf16, fp16 or no"):
        make_arguments()
    assert make_arguments(bf16=True).mixed_precision == "bf16"


@pytest.mark.parametrize(
    ("variable", "changes", "named"),
    [
        ("ACCELERATE_USE_FSDP", {}, "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", {}, "DEEPSPEED"),
        (None, {"fsdp": "full_shard"}, "FSDP"),
        (None, {"deepspeed": "zero.json"}, "DEEPSPEED"),
    ],
)
def test_sharded_training_is_refused_with_what_to_use_instead(make_arguments, monkeypatch, variable, changes, named):
    if variable is not None:
        monkeypatch.setenv(variable, "true")
    with pytest.raises(ValueError, match=f"no {named}.*MULTI_GPU.*activation_checkpointing"):
        make_arguments(**changes)
