import numpy as np
import pytest
import torch

from echomen_hf.labels import HEART_FAILURE_CATEGORIES, heart_failure_category
from echomen_hf.losses import ldw_supcon_loss, reweighted_regression_loss
from echomen_hf.methods.echomen import category_weights


TRAIN_LABELS = np.array([30.0, 39.9, 45.0, 50.0, 55.0, 60.0, 65.0, 100.0])


class TestCategoryWeights:
    def test_worked_by_hand(self):
        # Shares 2/8, 1/8 and 5/8 of the training set.
        weights = category_weights(TRAIN_LABELS)(np.array([39.9, 40.0, 49.9, 50.0, 100.0]))
        np.testing.assert_allclose(weights, [[4, 0, 0], [0, 8, 0], [0, 8, 0], [0, 0, 1.6], [0, 0, 1.6]])

    def test_mean_is_one_over_the_training_set(self):
        np.testing.assert_allclose(category_weights(TRAIN_LABELS)(TRAIN_LABELS).mean(axis=0), 1)

    def test_each_sample_belongs_to_the_expert_of_its_category(self):
        labels = np.linspace(0, 100, 401)
        owner = category_weights(TRAIN_LABELS)(labels).argmax(axis=1)
        names = list(HEART_FAILURE_CATEGORIES)
        assert [names[index] for index in owner] == [heart_failure_category(label) for label in labels]

    def test_category_without_samples_teaches_its_expert_nothing(self):
        labels = np.array([55.0, 60.0])
        weights = category_weights(labels)(labels)
        assert np.isfinite(weights).all()
        assert (weights[:, :2] == 0).all()


def test_plain_supcon_weighs_all_negatives_alike(make_trainer_of):
    trainer, batch = make_trainer_of("echomen_plain_supcon")
    loss = trainer.compute_loss(trainer.model, batch)
    outputs = trainer.model(pixel_values=batch["pixel_values"].flatten(0, 1))
    labels = batch["labels"]
    plain = ldw_supcon_loss(outputs.projection.view(4, 2, -1), labels, distance="none")
    regression = (outputs.regression - labels.repeat_interleave(2)).square().mean()
    torch.testing.assert_close(loss, regression + 0.5 * plain)


def test_category_experts_learn_from_their_category_only(make_trainer_of):
    trainer, batch = make_trainer_of("echomen_category_experts", stage=2)
    batch["labels"] = torch.tensor([55.0, 35.0, 62.0, 58.0])
    outputs = trainer.model(pixel_values=batch["pixel_values"])
    weights = category_weights(np.array(trainer.train_dataset.ejection_fractions))(batch["labels"])
    experts = reweighted_regression_loss(outputs.expert_predictions, batch["labels"], weights)
    ensemble = (outputs.expert_weights * outputs.expert_predictions).sum(-1)
    expected = experts + (ensemble - batch["labels"]).square().mean()
    loss = trainer.compute_loss(trainer.model, batch)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    reached = [expert.weight.grad.abs().max().item() > 0 for expert in trainer.model.experts]
    assert reached == [True, False, True]  # nobody in the batch has a mid-range EF


def test_empty_category_is_refused_where_experts_are_solved(make_trainer_of):
    trainer, _ = make_trainer_of("echomen_category_experts")
    args = trainer.args.replace(expert_solver="least_squares")
    with pytest.raises(ValueError, match="No training video is in hfref, hfmref: .*`expert_solver` to gradient"):
        type(trainer)(trainer.model, args, eval_dataset=trainer.eval_dataset, train_labels=[55.0, 60.0])


def test_mean_of_experts_has_no_aggregator(run):
    model = run("echomen_mean_of_experts")
    embedding = torch.randn(5, 8)
    outputs = model(embedding=embedding)
    torch.testing.assert_close(outputs.ejection_fraction, outputs.expert_predictions.mean(dim=-1))


def test_stage_1_head_predicts_without_experts(run):
    model = run("echomen_stage_1_head")
    outputs = model(embedding=torch.randn(5, 8))
    assert torch.equal(outputs.ejection_fraction, outputs.regression)


def test_number_of_experts_is_that_of_the_categories(run):
    assert run("echomen_category_experts", model_config={"num_experts": 5}).config.num_experts == 3


def test_folder_of_another_run_is_not_overwritten_by_a_reused_stage(run, tmp_path):
    run("echomen", "echomen")
    with pytest.raises(ValueError, match="run.method was 'echomen' and is 'echomen_stage_1_head'"):
        run("echomen_stage_1_head", "echomen", stage_1=tmp_path / "echomen" / "stage1")


@pytest.mark.parametrize("name", ["echomen_category_experts", "echomen_mean_of_experts", "echomen_stage_1_head"])
def test_stage_1_of_echomen_gives_the_same_result_as_its_own(run, tmp_path, name):
    run("echomen", "echomen")
    expected = run(name, "alone")
    reused = run(name, "reused", stage_1=tmp_path / "echomen" / "stage1")
    assert expected.config.to_diff_dict() == reused.config.to_diff_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(value, reused.state_dict()[key]), key
