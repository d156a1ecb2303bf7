import copy

import numpy as np
import pytest
import torch

from echomen_hf import EchoMENModel
from echomen_hf.inference import predict_split
from echomen_hf.training.adaptation import ADAPTATIONS, adapt_model, choose_way
from echomen_hf.training.embeddings import EvaluationEmbeddings
from echomen_hf.training.head_adaptation import (
    HEAD_ADAPTATIONS,
    assign_folds,
    heads_of,
    move_experts,
    predict_embeddings,
    subset,
    video_embeddings,
)


@pytest.fixture
def heads(tiny_model):
    """Heads that tell a feature of the embedding, and no more."""
    for expert in tiny_model.experts:
        expert.weight.data.zero_()[0, 0] = 10.0
        expert.bias.data.fill_(50.0)
    return heads_of(tiny_model)


def site(num_videos=80, slope=1.0, offset=0.0, noise=0.5, other=0.0, seed=0):
    """Videos with 1 to 3 clips each, whose labels are a line of what the heads tell, and of another feature."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randint(1, 4, (num_videos,), generator=generator)
    index = torch.arange(num_videos).repeat_interleave(clips)
    features = torch.randn(num_videos, 8, generator=generator)
    labels = offset + slope * (50 + 10 * features[:, 0]) + other * features[:, 1]
    labels = (labels + noise * torch.randn(num_videos, generator=generator)).double().numpy()
    return EvaluationEmbeddings(features[index], index.numpy(), labels, [f"v{n}" for n in range(num_videos)])


def adapted(heads, data, name):
    heads = copy.deepcopy(heads)
    HEAD_ADAPTATIONS[name](heads, data, np.arange(len(data.labels)), 0)
    return heads


def error(heads, data):
    return np.abs(predict_embeddings(heads, data) - data.labels).mean()


class TestFolds:
    def test_patients_stay_together_and_folds_are_of_one_size(self):
        groups = np.repeat(np.arange(20), 3)
        labels = np.random.default_rng(0).uniform(20, 70, 60)
        folds = assign_folds(labels, groups, 5, seed=1)
        assert all(len(set(folds[groups == group])) == 1 for group in range(20))
        assert np.bincount(folds).tolist() == [12] * 5
        assert (folds == assign_folds(labels, groups, 5, seed=1)).all()
        assert (folds != assign_folds(labels, groups, 5, seed=2)).any()

    def test_every_fold_has_weak_and_strong_hearts(self):
        labels = np.linspace(10, 80, 100)
        folds = assign_folds(labels, np.arange(100), 5, seed=0)
        means = [labels[folds == fold].mean() for fold in range(5)]
        assert max(means) - min(means) < 3

    def test_groups_may_have_any_numbers(self):
        folds = assign_folds(np.arange(4.0), np.array([7, 3, 90, 3]), 3, seed=0)
        assert sorted(set(folds.tolist())) == [0, 1, 2]
        assert folds[1] == folds[3]

    @pytest.mark.parametrize("num_folds", [1, 5])
    def test_too_few_patients(self, num_folds):
        with pytest.raises(ValueError, match=f"4 patients cannot be divided into {num_folds} folds"):
            assign_folds(np.arange(8.0), np.arange(8) // 2, num_folds, seed=0)


def test_subset_keeps_the_clips_of_its_videos():
    data = site(6)
    part = subset(data, np.array([4, 1]))
    assert part.file_names == ["v4", "v1"]
    assert part.labels.tolist() == data.labels[[4, 1]].tolist()
    for position, video in enumerate((4, 1)):
        assert torch.equal(part.embeddings[part.video_index == position], data.embeddings[data.video_index == video])


def test_embedding_of_a_video_is_the_mean_over_its_clips():
    data = site(6)
    data.embeddings += torch.randn(data.embeddings.shape, generator=torch.Generator().manual_seed(1))
    found = video_embeddings(data)
    for video in range(6):
        np.testing.assert_allclose(found[video], data.embeddings[data.video_index == video].mean(dim=0), atol=1e-6)


def test_embeddings_give_the_predictions_of_the_whole_model(tiny_model, tiny_processor, echonet_dir, make_arguments):
    from echomen_hf import load_echonet_dynamic
    from echomen_hf.data.clip_dataset import EvaluationClips
    from echomen_hf.training.embeddings import embed

    rows = list(load_echonet_dynamic(echonet_dir, split="train").select(range(4)))
    clips = EvaluationClips(rows, tiny_processor, "windows")
    embeddings = embed(tiny_model, clips, make_arguments(), "videos")
    data = EvaluationEmbeddings(embeddings, clips.video_index, clips.labels, clips.file_names)
    expected = predict_split(tiny_model, tiny_processor, rows, "windows", progress=False)
    found = predict_embeddings(heads_of(tiny_model), data)
    np.testing.assert_allclose(found, [prediction.ejection_fraction for prediction in expected], atol=1e-4)
    assert len(tiny_model.encoder.state_dict()) > 0


class TestWays:
    def test_line_finds_slope_and_offset(self, heads):
        fitted = adapted(heads, site(slope=0.5, offset=30, noise=0), "linear")
        assert fitted.config.recalibration["predicted"] == [0, 100]
        assert fitted.config.recalibration["corrected"] == pytest.approx([30, 80], abs=0.01)
        assert error(fitted, site(slope=0.5, offset=30, noise=0, seed=1)) < 0.01

    def test_line_never_falls(self, heads):
        fitted = adapted(heads, site(slope=-0.5, offset=80, noise=0), "linear")
        low, high = fitted.config.recalibration["corrected"]
        assert low == high

    def test_isotonic_finds_a_curve(self, heads):
        data, other = site(400, noise=0), site(400, noise=0, seed=1)
        for each in (data, other):
            each.labels = np.where(each.labels < 50, 30.0, 60.0)
        fitted = adapted(heads, data, "isotonic")
        assert set(fitted.config.recalibration["corrected"]) == {30.0, 60.0}
        assert len(fitted.config.recalibration["predicted"]) == 4
        assert error(fitted, other) < 0.5 < error(adapted(heads, data, "linear"), other)

    @pytest.mark.parametrize("name", ["linear", "isotonic"])
    def test_model_that_says_the_same_of_all(self, heads, name):
        for expert in heads.experts:
            expert.weight.data.zero_()
        data = site()
        fitted = adapted(heads, data, name)
        assert predict_embeddings(fitted, data) == pytest.approx(data.labels.mean())

    def test_experts_learn_a_feature_that_they_did_not_use(self, heads):
        data, other = site(other=8), site(other=8, seed=1)
        assert error(adapted(heads, data, "experts"), other) < 0.25 * error(heads, other)
        assert error(adapted(heads, data, "linear"), other) > 0.8 * error(heads, other)

    def test_head_of_stage_1_is_moved_where_it_predicts(self, heads):
        heads.config.prediction_head = "regression"
        heads.regression_head.load_state_dict(heads.experts[0].state_dict())
        before = copy.deepcopy(heads.experts.state_dict())
        data, other = site(other=8), site(other=8, seed=1)
        fitted = adapted(heads, data, "experts")
        assert error(fitted, other) < 0.25 * error(heads, other)
        assert all(torch.equal(value, fitted.experts.state_dict()[name]) for name, value in before.items())

    def test_experts_hardly_move_for_noise(self, heads):
        data, other = site(40, noise=8), site(400, noise=8, seed=1)
        assert error(adapted(heads, data, "experts"), other) < 1.1 * error(heads, other)

    def test_strong_penalty_moves_the_offset_alone(self, heads):
        moved = copy.deepcopy(heads)
        move_experts(moved, site(other=8, offset=5), 1e9)
        for before, after in zip(heads.experts, moved.experts):
            torch.testing.assert_close(after.weight, before.weight, atol=1e-3, rtol=0)
            assert after.bias.item() > before.bias.item() + 2

    def test_experts_behind_an_adapter_are_those_of_what_it_makes(self, tiny_config):
        tiny_config.adapter_size = 4
        torch.manual_seed(0)
        heads = heads_of(EchoMENModel(tiny_config))
        torch.nn.init.normal_(heads.adapter.fc2.weight, generator=torch.Generator().manual_seed(1))
        data, without = site(other=8), copy.deepcopy(heads)
        without.adapter = None
        with torch.no_grad():
            made = EvaluationEmbeddings(
                heads.head_input(data.embeddings), data.video_index, data.labels, data.file_names
            )
        found, expected = adapted(heads, data, "experts"), adapted(without, made, "experts")
        np.testing.assert_allclose(predict_embeddings(found, data), predict_embeddings(expected, made), rtol=1e-5)
        assert error(found, data) < 0.5 * error(heads, data)

    def test_earlier_recalibration_is_replaced(self, heads):
        data = site(slope=0.5, offset=30, noise=0)
        once = adapted(heads, data, "linear")
        assert adapted(once, data, "linear").config.recalibration == once.config.recalibration
        assert adapted(once, data, "experts").config.recalibration is None


def test_of_the_ways_that_help_the_best_for_all_categories_is_chosen():
    results = {
        "as_is": {"mae": 5.8, "balanced_mae": 6.3, "change_ci_high": 0.0},
        "linear": {"mae": 5.2, "balanced_mae": 5.9, "change_ci_high": -0.2},
        "isotonic": {"mae": 5.1, "balanced_mae": 6.5, "change_ci_high": -0.2},
        "experts": {"mae": 5.0, "balanced_mae": 5.0, "change_ci_high": 0.1},
    }
    assert choose_way(results) == "linear"
    one_missing = {name: values | {"balanced_mae": float("nan")} for name, values in results.items()}
    assert choose_way(one_missing) == "isotonic"
    assert choose_way({name: values | {"change_ci_high": 0.1} for name, values in results.items()}) == "as_is"


@pytest.fixture(scope="module")
def videos(echonet_dir):
    from echomen_hf import load_echonet_dynamic

    return list(load_echonet_dynamic(echonet_dir, split="train+validation+test"))


class TestAdaptModel:
    @pytest.fixture
    def tiny_model(self, tiny_model, tiny_processor, videos):
        """A model that does not say nearly the same of all videos, as random weights do, but 50 % with an sd of 10."""
        first = tiny_model.experts[0]
        for expert in tiny_model.experts:
            expert.load_state_dict(first.state_dict())
        own = predict_split(tiny_model, tiny_processor, videos, "center", progress=False)
        said = np.array([prediction.ejection_fraction for prediction in own])
        factor = 10 / said.std()
        offset = 50 - factor * (said.mean() - first.bias.item())
        for expert in tiny_model.experts:
            expert.weight.data *= factor
            expert.bias.data.fill_(offset)
        return tiny_model

    def test_site_that_reads_other_numbers_is_learnt(self, tiny_model, tiny_processor, videos, make_arguments):
        own = predict_split(tiny_model, tiny_processor, videos, "center", progress=False)
        said = np.array([prediction.ejection_fraction for prediction in own])
        assert said.std() > 2
        labels = 35 + 0.5 * said
        rows = [{**row, "ejection_fraction": label} for row, label in zip(videos, labels)]
        before = copy.deepcopy(tiny_model.state_dict())
        model, found = adapt_model(tiny_model, tiny_processor, rows, make_arguments(), protocol="center")
        assert found.chosen in ("linear", "isotonic", "experts")
        assert list(found.results) == ["as_is", "linear", "isotonic", "experts"]
        assert found.results["linear"]["change_ci_high"] < 0
        assert found.results[found.chosen]["mae"] == min(each["mae"] for each in found.results.values())
        assert (found.num_videos, found.num_patients) == (30, 30)
        assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())
        assert tiny_model.config.recalibration is None
        predicted = predict_split(model, tiny_processor, rows, "center", progress=False)
        errors = [abs(each.ejection_fraction - label) for each, label in zip(predicted, labels)]
        assert np.mean(errors) < 0.5 * found.results["as_is"]["mae"]
        assert all(prediction.interval is not None for prediction in predicted)

    def test_held_out_error_is_that_of_a_fit_without_the_fold(
        self, tiny_model, tiny_processor, videos, make_arguments
    ):
        args = make_arguments()
        _, found = adapt_model(tiny_model, tiny_processor, videos, args, protocol="center", num_folds=3)
        labels = np.array([row["ejection_fraction"] for row in videos])
        raw = np.array(
            [
                each.ejection_fraction
                for each in predict_split(tiny_model, tiny_processor, videos, "center", progress=False)
            ]
        )
        folds = assign_folds(labels, np.arange(30), 3, args.seed)
        predicted = np.empty(30)
        for fold in range(3):
            slope, offset = np.polyfit(raw[folds != fold], labels[folds != fold], 1)
            if slope < 0:
                slope, offset = 0, labels[folds != fold].mean()
            predicted[folds == fold] = (offset + slope * raw)[folds == fold]
        expected = np.abs(np.clip(predicted, 0, 100) - labels).mean()
        assert found.results["linear"]["mae"] == pytest.approx(expected, abs=0.05)
        assert found.results["as_is"]["mae"] == pytest.approx(np.abs(raw - labels).mean(), abs=1e-3)
        assert found.results["as_is"]["change"] == 0

    def test_nothing_is_changed_that_does_not_help(self, tiny_model, tiny_processor, videos, make_arguments):
        own = predict_split(tiny_model, tiny_processor, videos, "center", progress=False)
        rows = [{**row, "ejection_fraction": each.ejection_fraction} for row, each in zip(videos, own)]
        model, found = adapt_model(tiny_model, tiny_processor, rows, make_arguments(), protocol="center")
        assert found.chosen == "as_is"
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in tiny_model.state_dict().items())
        assert model.config.recalibration is None

    def test_way_can_be_named(self, tiny_model, tiny_processor, videos, make_arguments):
        model, found = adapt_model(
            tiny_model, tiny_processor, videos, make_arguments(), method="isotonic", protocol="center"
        )
        assert found.chosen == "isotonic" and model.config.recalibration is not None

    def test_few_videos_leave_it_to_the_model_which_are_usual(
        self, tiny_model, tiny_processor, videos, make_arguments
    ):
        # All are so far from the mean that they are unusable; they are estimated all the same.
        tiny_model.set_training_distribution(torch.full((8,), 100.0), torch.eye(8), 1.0)
        model, found = adapt_model(
            tiny_model, tiny_processor, videos, make_arguments(), method="linear", protocol="center"
        )
        assert np.isfinite(found.results["as_is"]["mae"])
        assert model.config.usual_distance == 1.0 and model.training_distribution.mean.tolist() == [100.0] * 8
        (forced,) = predict_split(model, tiny_processor, videos[:1], "center", progress=False)
        assert forced.quality == "unusable" and forced.interval is not None

    def test_a_hundred_videos_are_the_usual_ones(self, tiny_model, tiny_processor, videos, make_arguments):
        tiny_model.set_training_distribution(torch.full((8,), 100.0), torch.eye(8), 1.0)
        rows = (videos * 4)[:100]
        model, _ = adapt_model(tiny_model, tiny_processor, rows, make_arguments(), method="linear", protocol="center")
        predicted = predict_split(model, tiny_processor, videos, "center", progress=False)
        mean = np.mean([predicted[position % 30].embedding for position in range(100)], axis=0)
        np.testing.assert_allclose(model.training_distribution.mean, mean, atol=1e-5)
        assert {prediction.quality for prediction in predicted} == {"good"}
        assert tiny_model.config.usual_distance == 1.0

    def test_patients_are_counted_and_drawn(self, tiny_model, tiny_processor, videos, make_arguments):
        patients = [f"P{position // 3}" for position in range(30)]
        options = {"protocol": "center", "method": "linear"}
        _, single = adapt_model(tiny_model, tiny_processor, videos, make_arguments(), **options)
        _, found = adapt_model(tiny_model, tiny_processor, videos, make_arguments(), patients=patients, **options)
        assert found.num_patients == 10
        ends = [each.results["as_is"]["mae_ci_high"] for each in (single, found)]
        assert ends[0] != ends[1]

    def test_too_few_videos(self, tiny_model, tiny_processor, videos, make_arguments):
        with pytest.raises(ValueError, match="There are 29 videos to adapt to. At least 30"):
            adapt_model(tiny_model, tiny_processor, videos[:29], make_arguments())

    def test_unknown_way(self, tiny_model, tiny_processor, videos, make_arguments):
        with pytest.raises(ValueError, match=f"no way 'magic' .* {', '.join(ADAPTATIONS)}"):
            adapt_model(tiny_model, tiny_processor, videos, make_arguments(), method="magic")

    @pytest.mark.slow
    @pytest.mark.parametrize("prediction_head", ["experts", "regression"])
    def test_fine_tuning(self, tiny_model, tiny_processor, videos, make_arguments, prediction_head):
        tiny_model.config.prediction_head = prediction_head
        tiny_model.set_training_distribution(torch.zeros(8), torch.eye(8), 1.0)
        args = make_arguments(num_train_epochs=1, stage2_num_train_epochs=1, embedding_draws=1)
        model, found = adapt_model(
            tiny_model, tiny_processor, videos, args, method="finetune", crop_padding=3, protocol="center", num_folds=2
        )
        assert list(found.results) == list(ADAPTATIONS)
        assert found.chosen == "finetune"
        assert model.config.prediction_head == prediction_head
        assert not torch.equal(model.encoder.stem[0].weight, tiny_model.encoder.stem[0].weight)
        assert isinstance(model, EchoMENModel) and model.config.interval_calibration["protocol"] == "center"
        assert model.training_distribution is None and model.config.usual_distance is None
