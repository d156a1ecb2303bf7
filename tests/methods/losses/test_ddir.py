import pytest
import torch
from safetensors.torch import load_file

from echomen_hf.methods.losses.ddir import DDIRLoss, DDIRModel
from echomen_hf.methods.losses.lds import lds_weights


def test_first_epoch_is_the_weighted_squared_error(make_trainer_of):
    trainer, batch = make_trainer_of("ddir")
    loss = trainer.compute_loss(trainer.model, batch)
    regression = trainer.model(pixel_values=batch["pixel_values"]).regression
    weights = lds_weights(torch.tensor(trainer.train_dataset.ejection_fractions).double().numpy())(batch["labels"])
    torch.testing.assert_close(loss, (weights[:, 0] * (regression - batch["labels"]).square()).mean())


def test_later_epochs_predict_from_smoothed_features(make_trainer_of):
    trainer, batch = make_trainer_of("ddir")
    model, labels = trainer.model, batch["labels"]
    generator = torch.Generator().manual_seed(0)
    for label in labels.tolist():
        near = torch.tensor([label - 1, label, label, label + 1])
        model.feature_statistics.observe(torch.randn(4, 8, generator=generator), near.clamp(0, 100))
    trainer.method_loss.end_epoch(model)
    loss = trainer.compute_loss(model, batch)
    outputs = model(pixel_values=batch["pixel_values"])
    smoothed = model.feature_statistics.smooth(outputs.embedding, labels)
    assert not torch.allclose(smoothed, outputs.embedding)
    predictions = model.regression_head(smoothed).squeeze(-1)
    weights = trainer.method_loss.weights(labels)[:, 0]
    torch.testing.assert_close(loss, (weights * (predictions - labels).square()).mean())
    loss.backward()
    assert model.encoder.stem[0].weight.grad.abs().max() > 0


def test_statistics_are_those_of_the_epoch_and_prediction_is_not_smoothed(make_trainer_of):
    trainer, batch = make_trainer_of("ddir")
    trainer.compute_loss(trainer.model, batch)
    assert trainer.model.feature_statistics.epoch_count.sum() == 4
    trainer.model.eval()
    with torch.no_grad():
        before = trainer.model(pixel_values=batch["pixel_values"]).ejection_fraction
        trainer.compute_loss(trainer.model, batch)
        assert trainer.model.feature_statistics.epoch_count.sum() == 4
        trainer.method_loss.end_epoch(trainer.model)
        after = trainer.model(pixel_values=batch["pixel_values"]).ejection_fraction
    assert torch.equal(before, after)


def test_statistics_are_saved_with_checkpoints_and_left_out_of_the_final_model(run, tmp_path, videos):
    model = run("ddir", num_train_epochs=3)
    saved = load_file(tmp_path / "run" / "stage1" / "model.safetensors")
    assert saved["feature_statistics.num_epochs"].item() in (1, 2, 3)  # those before the epoch that was best on VAL
    labels = torch.tensor(videos["train"]["ejection_fraction"])
    assert set(saved["feature_statistics.seen"].nonzero().flatten().tolist()) == set(labels.long().tolist())
    assert saved["feature_statistics.epoch_count"].sum() == 0
    assert not any("feature_statistics" in name for name in model.state_dict())
    loaded = DDIRModel.from_pretrained(tmp_path / "run" / "stage1")
    assert torch.equal(loaded.feature_statistics.smoothed_mean, saved["feature_statistics.smoothed_mean"])


def test_weights_without_statistics_load_with_empty_ones(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded = DDIRModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encoder.stem[0].weight, tiny_model.encoder.stem[0].weight)
    assert all(not buffer.any() for buffer in loaded.feature_statistics.buffers())


def test_options_reach_the_statistics(make_trainer_of):
    trainer, batch = make_trainer_of("ddir", {"fds_start_smooth": 5, "fds_momentum": 0.0, "fds_kernel_size": 1})
    model = trainer.model
    for _ in range(2):
        trainer.compute_loss(model, batch)
        trainer.method_loss.end_epoch(model)
    statistics = model.feature_statistics
    features = torch.ones(4, 8)
    assert torch.equal(statistics.smooth(features, batch["labels"], trainer.method_loss.fds_start_smooth), features)
    torch.testing.assert_close(statistics.smoothed_mean, statistics.mean)


def test_bad_settings():
    labels = torch.tensor([50.0, 60.0]).numpy()
    with pytest.raises(ValueError, match="fds_momentum"):
        DDIRLoss(labels, fds_momentum=1.0)
    with pytest.raises(ValueError, match="odd and positive"):
        DDIRLoss(labels, fds_kernel_size=4)
