import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, TrainerCallback, TrainerState

from echomen_hf import EchoMENModel, EchoMENTrainer, EchoMENVideoProcessor
from echomen_hf.data import EvaluationClips, collate_clips, with_pixel_values
from echomen_hf.inference import predict_split
from echomen_hf.labels import ExpertWeightTable, expert_sample_weights
from echomen_hf.losses import ldw_supcon_loss, reweighted_regression_loss
from echomen_hf.training.embeddings import EvaluationEmbeddings, TrainingEmbeddings
from echomen_hf.training.trainer import BestCheckpointByStep, per_video_metrics


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.fixture
def make_trainer(make_arguments, make_data, tiny_model):
    def make(stage, model=None, num_views=None, **changes):
        num_views = num_views or (2 if stage == 1 else 1)
        train, evaluation = make_data(num_views)
        return EchoMENTrainer(
            model=model or tiny_model,
            args=make_arguments(stage=stage, **changes),
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=train.processor,
        )

    return make


def batch_of(trainer, size=4):
    return with_pixel_values(collate_clips([trainer.train_dataset[index] for index in range(size)]))


class TestStages:
    def test_stage_1_trains_encoder_projector_and_regression_head(self, make_trainer):
        trainer = make_trainer(1)
        model = trainer.model
        before = snapshot(model)
        trainer.train()
        parts = {name.split(".")[0] for name in changed(model, before)}
        assert parts == {"encoder", "projector", "regression_head"}
        assert model.config.prediction_head == "regression"

    def test_stage_2_trains_experts_and_aggregator_only(self, make_trainer):
        trainer = make_trainer(2)
        model = trainer.model
        before = snapshot(model)
        trainer.train()
        # Buffers are part of the state: a moving batch statistic would show here.
        assert {name.split(".")[0] for name in changed(model, before)} == {"experts", "aggregator"}
        assert model.config.prediction_head == "experts"

    def test_stage_1_loss_is_regression_plus_lambda_contrastive(self, make_trainer):
        trainer = make_trainer(1, contrastive_weight=0.7, contrastive_temperature=0.2)
        model = trainer.model.train()
        batch = batch_of(trainer)
        loss = trainer.compute_loss(model, batch)
        state = copy.deepcopy(model)
        output = state(pixel_values=batch["pixel_values"].flatten(0, 1))
        labels = batch["labels"]
        train_labels = np.asarray(trainer.train_dataset.videos["ejection_fraction"])
        contrastive = ldw_supcon_loss(
            output.projection.view(4, 2, -1), labels, temperature=0.2, label_std=float(train_labels.std())
        )
        regression = (output.regression - labels.repeat_interleave(2)).square().mean()
        torch.testing.assert_close(loss, regression + 0.7 * contrastive)

    def test_stage_2_loss_weighs_samples_and_detaches_experts(self, make_trainer):
        trainer = make_trainer(2)
        trainer.prepare_stage()
        model = trainer.model.train()
        batch = batch_of(trainer)
        trainer.compute_loss(model, batch).backward()
        expert_gradients = [expert.weight.grad.clone() for expert in model.experts]
        aggregator_gradient = model.aggregator.fc2.weight.grad.clone()

        model.zero_grad()
        output = model(pixel_values=batch["pixel_values"])
        train_labels = torch.tensor(trainer.train_dataset.videos["ejection_fraction"], dtype=torch.float64)
        weights = expert_sample_weights(train_labels)[:4].float()
        reweighted_regression_loss(output.expert_predictions, batch["labels"], weights).backward()
        for found, expert in zip(expert_gradients, model.experts):
            torch.testing.assert_close(found, expert.weight.grad)

        model.zero_grad()
        output = model(pixel_values=batch["pixel_values"])
        (output.ejection_fraction - batch["labels"]).square().mean().backward()
        torch.testing.assert_close(aggregator_gradient, model.aggregator.fc2.weight.grad)

    def test_rare_hearts_weigh_more_in_the_aggregator_if_asked_to(self, make_trainer, tiny_model):
        losses = {}
        for exponent in (0.0, 1.0):
            trainer = make_trainer(2, model=copy.deepcopy(tiny_model), aggregator_weight_exponent=exponent)
            trainer.prepare_stage()
            batch = batch_of(trainer)
            output = trainer.model(pixel_values=batch["pixel_values"])
            errors = (output.ejection_fraction - batch["labels"]).square()
            _, terms = trainer.stage.loss(trainer.model, output, batch["labels"], 1)
            losses[exponent] = terms["loss_aggregator"]
            if exponent == 0:
                torch.testing.assert_close(losses[exponent], errors.mean())
            else:
                # The last of three experts has the exponent 1 too.
                labels = trainer.train_dataset.videos["ejection_fraction"]
                weights = ExpertWeightTable(np.asarray(labels), 3)(batch["labels"])[:, -1]
                torch.testing.assert_close(losses[exponent], (weights * errors).mean())
        assert losses[0.0] != losses[1.0]

    def test_joint_gradients_reach_the_experts(self, make_trainer, tiny_model):
        gradients = {}
        for kind in ("detached", "joint"):
            trainer = make_trainer(2, model=copy.deepcopy(tiny_model), aggregator_gradients=kind)
            trainer.prepare_stage()
            trainer.compute_loss(trainer.model.train(), batch_of(trainer)).backward()
            gradients[kind] = trainer.model.experts[0].weight.grad
        assert (gradients["joint"] - gradients["detached"]).abs().max() > 1e-3

    def test_stage_2_learns_from_embeddings_as_from_videos(self, make_trainer):
        trainer = make_trainer(2)
        trainer.prepare_stage()
        batch = batch_of(trainer)
        model = trainer.model.train()
        with torch.no_grad():
            embedding = model(pixel_values=batch["pixel_values"]).embedding
        from_videos = trainer.compute_loss(model, batch)
        from_embeddings = trainer.compute_loss(model, {"embedding": embedding, "labels": batch["labels"]})
        torch.testing.assert_close(from_videos, from_embeddings)

    def test_stage_1_on_embeddings_trains_adapter_projector_and_regression_head(
        self, make_arguments, make_data, tiny_config
    ):
        tiny_config.adapter_size = 4
        model = EchoMENModel(tiny_config)
        embeddings = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
        labels = [20.0, 20.2, 45.0, 45.3, 70.0, 70.1]
        train = TrainingEmbeddings(embeddings, labels, num_views=2)
        evaluation = EvaluationEmbeddings(embeddings[0], np.arange(6), np.array(labels), list("abcdef"))
        trainer = EchoMENTrainer(model, make_arguments(stage=1), train_dataset=train, eval_dataset=evaluation)
        before = snapshot(model)
        trainer.prepare_stage()
        batch = collate_clips([train[index] for index in range(6)])
        loss = trainer.compute_loss(model.train(), batch)
        with torch.no_grad():
            outputs = model(embedding=batch["embedding"].flatten(0, 1))
            regression = (outputs.regression - batch["labels"].repeat_interleave(2)).square().mean()
            contrastive = ldw_supcon_loss(
                outputs.projection.unflatten(0, (6, 2)), batch["labels"], label_std=float(np.std(labels))
            )
        torch.testing.assert_close(loss.detach(), regression + 0.5 * contrastive)
        trainer.train()
        parts = {name.split(".")[0] for name in changed(model, before)}
        assert parts == {"adapter", "projector", "regression_head"}

    def test_both_stages_are_not_for_one_trainer(self, make_trainer):
        with pytest.raises(ValueError, match="runs one stage.*fit"):
            make_trainer("both")

    def test_mean_aggregation_trains_experts_alone(self, make_trainer, tiny_config):
        tiny_config.expert_aggregation = "mean"
        trainer = make_trainer(2, model=EchoMENModel(tiny_config))
        before = snapshot(trainer.model)
        trainer.train()
        assert {name.split(".")[0] for name in changed(trainer.model, before)} == {"experts"}


class TestOptimisation:
    def test_learning_rate_falls_tenfold_every_so_many_epochs(self, make_trainer):
        rates = {}

        class Watch(TrainerCallback):
            def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
                rates[state.global_step] = optimizer.param_groups[0]["lr"]

        trainer = make_trainer(2, num_train_epochs=5, lr_decay_epochs=2)
        trainer.add_callback(Watch())
        trainer.train()
        steps = math.ceil(len(trainer.train_dataset) / 6)
        expected = [1e-4 * 0.1 ** (step // (2 * steps)) for step in range(5 * steps)]
        assert [rates[step] for step in range(5 * steps)] == pytest.approx(expected)

    def test_paper_optimiser_is_plain_sgd_with_momentum(self, make_trainer):
        trainer = make_trainer(1)
        trainer.prepare_stage()
        optimizer = trainer.create_optimizer()
        assert isinstance(optimizer, torch.optim.SGD)
        assert optimizer.defaults["momentum"] == 0.9
        assert trainer.args.max_grad_norm == 0

    def test_aggregator_learns_at_its_own_rate(self, make_trainer):
        trainer = make_trainer(2, learning_rate=1e-2, aggregator_learning_rate_factor=0.1)
        trainer.prepare_stage()
        rates = {}
        for group in trainer.create_optimizer().param_groups:
            rates |= {id(parameter): (group["lr"], group["weight_decay"]) for parameter in group["params"]}
        trained = {name: rates[id(p)] for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert trained["experts.0.weight"] == (1e-2, 1e-4)
        assert trained["experts.0.bias"] == (1e-2, 0.0)
        assert trained["aggregator.fc1.weight"] == (pytest.approx(1e-3), 1e-4)
        assert trained["aggregator.fc2.bias"] == (pytest.approx(1e-3), 0.0)
        before = snapshot(trainer.model)
        trainer.train()
        assert {name.split(".")[0] for name in changed(trainer.model, before)} == {"experts", "aggregator"}

    def test_weight_decay_spares_biases_and_normalisation(self, make_trainer):
        trainer = make_trainer(1)
        decayed = set(trainer.get_decay_parameter_names(trainer.model))
        assert "encoder.stem.0.weight" in decayed
        assert "regression_head.weight" in decayed
        assert not [name for name in decayed if name.endswith("bias")]
        assert "encoder.stem.1.weight" not in decayed

    def test_accumulated_batches_give_the_weights_of_one_large_batch(self, make_trainer, tiny_model):
        weights = []
        for size, accumulation in ((6, 1), (2, 3)):
            trainer = make_trainer(
                2,
                model=copy.deepcopy(tiny_model),
                per_device_train_batch_size=size,
                gradient_accumulation_steps=accumulation,
                max_steps=2,
                eval_strategy="no",
                save_strategy="no",
                load_best_model_at_end=False,
            )
            trainer.train()
            weights.append(trainer.model.experts[2].weight)
        torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-5)

    def test_early_stopping(self, make_trainer):
        trainer = make_trainer(2, num_train_epochs=30, learning_rate=0.0, early_stopping_patience=2)
        trainer.train()
        assert trainer.state.epoch == 3

    def test_loss_that_is_not_finite_stops_with_its_parts(self, make_trainer):
        trainer = make_trainer(1)
        trainer.model.regression_head.bias.data.fill_(torch.nan)
        with pytest.raises(
            FloatingPointError, match="stage 1 is not finite at step 0 .*loss_regression nan.*learning_rate"
        ):
            trainer.train()

    def test_identical_labels(self, make_trainer):
        trainer = make_trainer(1, max_steps=2)
        batch = batch_of(trainer)
        batch["labels"][:] = 55.0
        assert torch.isfinite(trainer.compute_loss(trainer.model.train(), batch))


class TestUseAsATrainer:
    def test_another_data_set_is_scored_against_its_own_labels(self, make_trainer, videos):
        trainer = make_trainer(2)
        test = EvaluationClips(videos["test"], trainer.train_dataset.processor, "windows")
        found = trainer.evaluate(test)["eval_mae"]
        predicted = predict_split(trainer.model, test.processor, videos["test"], "windows", progress=False)
        errors = [abs(p.ejection_fraction - ef) for p, ef in zip(predicted, test.labels)]
        assert found == pytest.approx(np.mean(errors), rel=1e-5)
        assert trainer.predict(test).metrics["test_mae"] == pytest.approx(np.mean(errors), rel=1e-5)

    def test_evaluation_alone_changes_nothing(self, make_arguments, make_data, tiny_model):
        _, evaluation = make_data()
        trainer = EchoMENTrainer(tiny_model, make_arguments(), eval_dataset=evaluation)
        assert "eval_mae" in trainer.evaluate()
        assert tiny_model.config.prediction_head == "experts"
        assert all(parameter.requires_grad for parameter in tiny_model.parameters())

    @pytest.mark.parametrize("stage", [1, 2])
    def test_every_parameter_can_be_trained_again_afterwards(self, make_trainer, stage):
        trainer = make_trainer(stage, max_steps=1)
        trainer.train()
        assert all(parameter.requires_grad for parameter in trainer.model.parameters())
        assert not trainer.model.encoder_frozen

    @pytest.mark.parametrize("stage", [1, 2])
    def test_list_of_items(self, make_arguments, make_data, tiny_model, stage):
        train, _ = make_data(num_views=2 if stage == 1 else 1)
        items = [train[index] for index in range(4)]
        settings = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        trainer = EchoMENTrainer(tiny_model, make_arguments(stage=stage, **settings), train_dataset=items)
        assert math.isfinite(trainer.train().training_loss)

    def test_arguments_stand_in_the_order_of_the_trainer(self, make_arguments, make_data, tiny_config):
        train, evaluation = make_data(num_views=2)
        trainer = EchoMENTrainer(
            None,
            make_arguments(max_steps=1),
            None,
            train,
            evaluation,
            train.processor,
            lambda: EchoMENModel(tiny_config),
        )
        assert math.isfinite(trainer.train().training_loss)

    def test_metrics_that_nothing_computes_are_refused_at_once(self, make_arguments, make_data, tiny_model):
        train, evaluation = make_data(num_views=2)
        with pytest.raises(ValueError, match="'mse', which only `EvaluationClips` give"):
            EchoMENTrainer(tiny_model, make_arguments(), None, train, {"val": evaluation})

    def test_bf16_and_checkpointing_through_the_arguments(self, make_trainer):
        trainer = make_trainer(1, bf16=True, activation_checkpointing=True, max_steps=2)
        assert math.isfinite(trainer.train().training_loss)
        assert trainer.model.is_activation_checkpointing

    @pytest.mark.parametrize("stage", [1, 2])
    def test_batch_of_one_in_both_stages(self, make_trainer, stage):
        trainer = make_trainer(stage, per_device_train_batch_size=1, max_steps=2)
        assert math.isfinite(trainer.train().training_loss)


class TestRecords:
    def test_parts_of_the_loss_are_logged_apart(self, make_trainer):
        for stage, names in ((1, {"loss_regression", "loss_contrastive"}), (2, {"loss_experts", "loss_aggregator"})):
            trainer = make_trainer(stage)
            trainer.train()
            training = [entry for entry in trainer.state.log_history if "loss" in entry]
            assert all(names <= entry.keys() for entry in training)
        entry = training[0]
        assert entry["loss"] == pytest.approx(entry["loss_experts"] + entry["loss_aggregator"], rel=1e-3)

    def test_validation_errors_per_category(self, make_trainer):
        trainer = make_trainer(2)
        metrics = trainer.evaluate()
        assert {"eval_mae", "eval_mse", "eval_mae_hfpef"} <= metrics.keys()

    def test_clips_of_a_video_are_averaged_before_errors_are_taken(self, make_data):
        _, evaluation = make_data()
        video_index, labels = evaluation.video_index, evaluation.labels
        assert len(video_index) > len(labels)
        clips = labels[video_index] + 1.0
        # Deviations that cancel within each video: errors of clips are large, those of videos all 1.
        for video in np.unique(video_index):
            mine = np.flatnonzero(video_index == video)
            if len(mine) > 1:
                clips[mine[0]] += 8
                clips[mine[1]] -= 8
        metrics = per_video_metrics(evaluation)(EvalPrediction(clips, labels[video_index]))
        assert metrics["mae"] == pytest.approx(1.0)
        assert metrics["mse"] == pytest.approx(1.0)

    def test_folder_loads_and_holds_no_pickled_arguments(self, make_trainer, tmp_path):
        trainer = make_trainer(1)
        trainer.train()
        trainer.save_model()
        folder = tmp_path / "run"
        assert not list(folder.rglob("training_args.bin"))
        assert json.loads((folder / "training_args.json").read_text())["contrastive_weight"] == 0.5
        loaded = EchoMENModel.from_pretrained(folder)
        assert torch.equal(loaded.regression_head.weight, trainer.model.regression_head.weight)
        assert EchoMENVideoProcessor.from_pretrained(folder).num_frames == 8

    def test_best_epoch_is_kept(self, make_trainer):
        trainer = make_trainer(2, num_train_epochs=3, learning_rate=1e-3)
        trainer.train()
        history = [entry["eval_mae"] for entry in trainer.state.log_history if "eval_mae" in entry]
        assert trainer.evaluate()["eval_mae"] == pytest.approx(min(history))


def test_the_best_checkpoint_is_found_where_the_run_was_moved_to(make_arguments, tmp_path):
    args = make_arguments(output_dir=str(tmp_path / "DOE_JOHN" / "run"))
    checkpoint = Path(args.output_dir) / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    state = TrainerState(best_global_step=3, global_step=3, best_model_checkpoint=str(checkpoint))
    callback = BestCheckpointByStep()
    callback.on_save(args, state, None)
    assert "DOE_JOHN" not in (checkpoint / "trainer_state.json").read_text()
    moved = (tmp_path / "DOE_JOHN" / "run").rename(tmp_path / "moved")
    found = TrainerState.load_from_json(str(moved / "checkpoint-3" / "trainer_state.json"))
    callback.on_train_begin(args.replace(output_dir=str(moved)), found, None)
    assert found.best_model_checkpoint == str(moved / "checkpoint-3")
