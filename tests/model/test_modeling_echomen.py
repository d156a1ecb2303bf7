import copy
import math

import pytest
import torch
from transformers import AutoModel

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.model.video_prediction_echomen import average_clips
from helpers.tiny_config import make_tiny_config


def clips(config, batch=2, seed=0):
    shape = (batch, config.num_frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tiny_backbone(tiny_model, tmp_path):
    """A state dictionary in torchvision's names, with a 400-class head."""
    state = {name: value.clone() for name, value in tiny_model.encoder.state_dict().items()}
    state |= {"fc.weight": torch.randn(400, 8), "fc.bias": torch.randn(400)}
    return state


class TestArchitecture:
    def test_default_encoder_has_as_many_parameters_as_r2plus1d_18(self):
        with torch.device("meta"):
            model = EchoMENModel(EchoMENConfig())
        assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 31_300_125

    @pytest.mark.parametrize("batch", [1, 2])
    def test_embeddings_agree_with_torchvision(self, tmp_path, batch):
        video_models = pytest.importorskip("torchvision.models.video")
        torch.manual_seed(1)
        reference = video_models.r2plus1d_18().eval()
        for layer in reference.modules():
            if isinstance(layer, torch.nn.BatchNorm3d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
        torch.save(reference.state_dict(), tmp_path / "r2plus1d_18.pth")
        model = EchoMENModel.from_backbone_checkpoint(tmp_path / "r2plus1d_18.pth")
        reference.fc = torch.nn.Identity()
        pixel_values = torch.randn(batch, 8, 3, 64, 64)
        with torch.inference_mode():
            expected = reference(pixel_values.transpose(1, 2))
            embedding = model(pixel_values=pixel_values).embedding
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("depths", "widths", "frames", "size"),
        [((1,), (3,), 5, 17), ((2, 1, 1), (4, 6, 8), 16, 56), ((1,) * 5, (2,) * 5, 33, 112)],
    )
    def test_any_depth_width_length_and_size(self, depths, widths, frames, size):
        config = EchoMENConfig(depths=depths, hidden_sizes=widths, num_channels=1, num_frames=frames, image_size=size)
        output = EchoMENModel(config).eval()(pixel_values=clips(config), output_hidden_states=True)
        assert output.embedding.shape == (2, widths[-1])
        assert output.ejection_fraction.shape == (2,)
        assert [state.shape[1] for state in output.hidden_states] == [widths[0], *widths]

    def test_clips_do_not_influence_each_other(self, tiny_model):
        pixel_values = clips(tiny_model.config, batch=3)
        together = tiny_model(pixel_values=pixel_values)
        alone = tiny_model(pixel_values=pixel_values[1:2])
        torch.testing.assert_close(together.embedding[1:2], alone.embedding)
        torch.testing.assert_close(together.logits[1:2], alone.logits)


class TestInitialisation:
    def test_heads_start_at_the_mean_ejection_fraction(self, tiny_config):
        model = EchoMENModel(tiny_config)
        for head in (model.regression_head, *model.experts):
            assert head.bias.item() == pytest.approx(55.6)
            assert head.weight.abs().max() < 0.1
        wide = EchoMENModel(EchoMENConfig(depths=(1,), hidden_sizes=(512,), num_channels=1, stem_mid_channels=1))
        weights = torch.cat([expert.weight for expert in wide.experts])  # 1536 numbers
        assert weights.std().item() == pytest.approx(0.01, rel=0.1)

    def test_experts_start_different(self, tiny_model):
        weights = [expert.weight for expert in tiny_model.experts]
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])


class TestOutput:
    def test_names_and_shapes(self, tiny_model):
        output = tiny_model(pixel_values=clips(tiny_model.config), labels=torch.tensor([30.0, 60.0]))
        shapes = {name: tuple(value.shape) for name, value in output.items()}
        assert shapes == {
            "loss": (),
            "logits": (2, 1),
            "expert_predictions": (2, 3),
            "expert_weights": (2, 3),
            "embedding": (2, 8),
            "projection": (2, 8),
            "regression": (2,),
        }
        torch.testing.assert_close(output.ejection_fraction, output.logits[:, 0])

    def test_ensemble_is_the_weighted_sum_of_the_experts(self, tiny_model):
        output = tiny_model(pixel_values=clips(tiny_model.config))
        torch.testing.assert_close(output.expert_weights.sum(-1), torch.ones(2))
        expected = (output.expert_weights * output.expert_predictions).sum(-1)
        torch.testing.assert_close(output.ejection_fraction, expected)

    def test_projection_lies_on_the_unit_sphere(self, tiny_model):
        projection = tiny_model(pixel_values=clips(tiny_model.config)).projection
        torch.testing.assert_close(projection.norm(dim=-1), torch.ones(2))

    def test_loss_is_the_squared_error_of_the_prediction(self, tiny_model):
        labels = torch.tensor([30.0, 60.0])
        output = tiny_model(pixel_values=clips(tiny_model.config), labels=labels)
        assert output.loss.item() == pytest.approx((output.ejection_fraction - labels).square().mean().item())

    def test_embeddings_can_replace_videos(self, tiny_model):
        output = tiny_model(pixel_values=clips(tiny_model.config))
        again = tiny_model(embedding=output.embedding)
        for name in ("logits", "expert_predictions", "expert_weights", "projection", "regression"):
            assert torch.equal(output[name], again[name])

    def test_prediction_head_chooses_where_the_ejection_fraction_comes_from(self, tiny_model):
        pixel_values = clips(tiny_model.config)
        tiny_model.config.prediction_head = "regression"
        output = tiny_model(pixel_values=pixel_values)
        torch.testing.assert_close(output.ejection_fraction, output.regression)

    def test_mean_aggregation_averages_the_experts(self, tiny_config):
        tiny_config.expert_aggregation = "mean"
        output = EchoMENModel(tiny_config).eval()(pixel_values=clips(tiny_config))
        torch.testing.assert_close(output.ejection_fraction, output.expert_predictions.mean(-1))

    def test_tuple_instead_of_output(self, tiny_model):
        pixel_values = clips(tiny_model.config)
        as_tuple = tiny_model(pixel_values=pixel_values, return_dict=False)
        assert isinstance(as_tuple, tuple)
        assert torch.equal(as_tuple[0], tiny_model(pixel_values=pixel_values).logits)


class TestAdapter:
    @pytest.fixture
    def model(self, tiny_config):
        tiny_config.adapter_size = 5
        torch.manual_seed(0)
        return EchoMENModel(tiny_config).eval()

    @pytest.fixture
    def embedding(self):
        return torch.randn(6, 8, generator=torch.Generator().manual_seed(1))

    def test_it_changes_nothing_before_it_is_trained(self, model, embedding):
        assert torch.equal(model.head_input(embedding), embedding)
        assert model.adapter.fc1.weight.abs().max() > 0

    def test_heads_take_in_what_it_makes(self, model, embedding):
        torch.nn.init.normal_(model.adapter.fc2.weight)
        centred = embedding - embedding.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5) ** 0.5
        hidden = (normed @ model.adapter.fc1.weight.T).clamp(min=0)
        adapted = embedding + hidden @ model.adapter.fc2.weight.T
        output = model(embedding=embedding)
        torch.testing.assert_close(output.regression, model.regression_head(adapted).squeeze(-1))
        torch.testing.assert_close(output.projection, model.projector(adapted))
        torch.testing.assert_close(output.expert_weights, model.aggregator(adapted))
        assert torch.equal(output.embedding, embedding)

    def test_embeddings_can_replace_videos(self, model):
        torch.nn.init.normal_(model.adapter.fc2.weight)
        videos = model(pixel_values=clips(model.config))
        torch.testing.assert_close(model(embedding=videos.embedding).logits, videos.logits)

    def test_round_trip(self, model, embedding, tmp_path):
        torch.nn.init.normal_(model.adapter.fc2.weight)
        model.save_pretrained(tmp_path)
        loaded = EchoMENModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.adapter.fc2.weight.dtype == torch.float32
        assert torch.equal(loaded.head_input(embedding), model.head_input(embedding))


class TestTopKRouting:
    @pytest.fixture
    def embedding(self):
        return torch.randn(5, 8, generator=torch.Generator().manual_seed(3))

    def spread(self, model):
        """Make experts and weights differ by more than initialisation does."""
        generator = torch.Generator().manual_seed(4)
        for parameter in (*model.experts.parameters(), *model.aggregator.parameters()):
            parameter.data = torch.randn(parameter.shape, generator=generator)
        return model

    def test_all_experts_is_the_paper(self, tiny_model, embedding):
        full = self.spread(tiny_model)(embedding=embedding)
        tiny_model.config.expert_top_k = 3
        assert torch.equal(tiny_model(embedding=embedding).logits, full.logits)

    def test_heaviest_experts_are_renormalised(self, tiny_model, embedding):
        full = self.spread(tiny_model)(embedding=embedding)
        tiny_model.config.expert_top_k = 2
        output = tiny_model(embedding=embedding)
        weights, index = full.expert_weights.topk(2)
        expected = (weights * full.expert_predictions.gather(1, index)).sum(-1) / weights.sum(-1)
        torch.testing.assert_close(output.ejection_fraction, expected)
        torch.testing.assert_close(output.expert_weights.sum(-1), torch.ones(5))
        assert output.expert_predictions.isnan().sum(-1).tolist() == [1] * 5
        assert (output.expert_weights == 0).equal(output.expert_predictions.isnan())

    def test_training_consults_every_expert(self, tiny_model, embedding):
        tiny_model.config.expert_top_k = 1
        output = tiny_model.train()(embedding=embedding)
        assert not output.expert_predictions.isnan().any()


class TestInputChecks:
    def test_exactly_one_input(self, tiny_model):
        with pytest.raises(ValueError, match="exactly one"):
            tiny_model()
        with pytest.raises(ValueError, match="exactly one"):
            tiny_model(pixel_values=clips(tiny_model.config), embedding=torch.zeros(2, 8))

    def test_wrong_shapes(self, tiny_model):
        with pytest.raises(ValueError, match=r"\(batch, frames, 1, height, width\).*\(2, 1, 8, 32, 32\)"):
            tiny_model(pixel_values=clips(tiny_model.config).transpose(1, 2))
        with pytest.raises(ValueError, match=r"\(batch, 8\).*\(2, 9\)"):
            tiny_model(embedding=torch.zeros(2, 9))

    def test_one_label_for_two_clips(self, tiny_model):
        with pytest.raises(ValueError, match="1 labels for 2 clips"):
            tiny_model(pixel_values=clips(tiny_model.config), labels=torch.tensor([50.0]))

    def test_raw_pixels(self, tiny_model):
        with pytest.raises(ValueError, match="video processor"):
            tiny_model(pixel_values=clips(tiny_model.config).to(torch.uint8))


class TestSavingAndLoading:
    def test_round_trip_is_bit_equal(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        loaded = EchoMENModel.from_pretrained(tmp_path)
        assert loaded.config.to_diff_dict().items() >= {"hidden_sizes": [4, 8], "num_frames": 8}.items()
        assert loaded.state_dict().keys() == tiny_model.state_dict().keys()
        for name, value in tiny_model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
        assert isinstance(AutoModel.from_pretrained(tmp_path), EchoMENModel)

    def test_no_pickle_is_written(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_heads_made_from_a_configuration_are_in_single_precision(self, tiny_config, dtype):
        model = AutoModel.from_config(tiny_config, dtype=dtype)
        assert {weight.dtype for weight in model.encoder.parameters()} == {dtype}
        for name in model._keep_in_fp32_modules_strict:
            assert {weight.dtype for weight in model.get_submodule(name).parameters()} == {torch.float32}, name

    def test_half_precision_encoder_keeps_heads_in_full_precision(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        model = EchoMENModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert model.encoder.stem[0].weight.dtype == torch.bfloat16
        assert model.experts[0].weight.dtype == torch.float32
        pixel_values = clips(tiny_model.config)
        output = model(pixel_values=pixel_values)
        assert torch.equal(output.logits, model(pixel_values=pixel_values.bfloat16()).logits)
        assert output.logits.dtype == torch.float32
        torch.testing.assert_close(
            output.ejection_fraction, tiny_model(pixel_values=pixel_values).ejection_fraction, atol=0.05, rtol=0
        )

    def test_folder_without_weights(self, tiny_config, tmp_path):
        tiny_config.save_pretrained(tmp_path)
        with pytest.raises(OSError, match="no file named model.safetensors"):
            EchoMENModel.from_pretrained(tmp_path)

    def test_configuration_that_does_not_fit_the_weights(self, tiny_model, tmp_path):
        tiny_model.save_pretrained(tmp_path)
        with pytest.raises(RuntimeError, match="size mismatch|mismatch"):
            EchoMENModel.from_pretrained(tmp_path, num_experts=3, hidden_sizes=[4, 16])


class TestFrozenEncoder:
    def test_batch_statistics_do_not_move(self, tiny_model):
        tiny_model.freeze_encoder()
        before = {name: value.clone() for name, value in tiny_model.encoder.state_dict().items()}
        tiny_model.train()
        assert tiny_model.training
        assert not tiny_model.encoder.training
        loss = tiny_model(pixel_values=clips(tiny_model.config), labels=torch.tensor([30.0, 60.0])).loss
        loss.backward()
        for name, value in tiny_model.encoder.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert all(parameter.grad is None for parameter in tiny_model.encoder.parameters())
        assert tiny_model.experts[0].weight.grad is not None

    def test_release(self, tiny_model):
        tiny_model.freeze_encoder()
        tiny_model.freeze_encoder(False)
        tiny_model.train()
        assert tiny_model.encoder.training
        assert all(parameter.requires_grad for parameter in tiny_model.encoder.parameters())


class TestActivationCheckpointing:
    def step(self, model):
        model.train()
        model(pixel_values=clips(model.config), labels=torch.tensor([30.0, 60.0])).loss.backward()
        return model

    def test_gradients_and_batch_statistics_are_those_of_ordinary_training(self, tiny_model):
        checkpointed = copy.deepcopy(tiny_model)
        checkpointed.activation_checkpointing_enable()
        assert checkpointed.is_activation_checkpointing
        self.step(tiny_model)
        self.step(checkpointed)
        for (name, plain), recomputed in zip(tiny_model.named_parameters(), checkpointed.parameters()):
            assert (plain.grad is None) == (recomputed.grad is None), name
            if plain.grad is not None:
                torch.testing.assert_close(plain.grad, recomputed.grad, msg=name)
        for (name, plain), recomputed in zip(tiny_model.named_buffers(), checkpointed.buffers()):
            assert torch.equal(plain, recomputed), name
        assert tiny_model.encoder.layer1[0].conv1[1].num_batches_tracked == 1

    def test_re_entrant_checkpointing_moves_statistics_twice(self, tiny_model):
        tiny_model.activation_checkpointing_enable({"use_reentrant": True})
        self.step(tiny_model)
        assert tiny_model.encoder.layer1[0].conv1[1].num_batches_tracked == 2


class TestBackboneCheckpoint:
    def load(self, state, tmp_path, config):
        torch.save(state, tmp_path / "backbone.pth")
        return EchoMENModel.from_backbone_checkpoint(tmp_path / "backbone.pth", config)

    def assert_same_encoder(self, model, state):
        for name, value in model.encoder.state_dict().items():
            assert torch.equal(value, state[name]), name

    def test_torchvision_names(self, tiny_backbone, tiny_config, tmp_path):
        model = self.load(tiny_backbone, tmp_path, tiny_config)
        self.assert_same_encoder(model, tiny_backbone)
        assert model.regression_head.bias.item() == pytest.approx(55.6)

    def test_safetensors(self, tiny_backbone, tiny_config, tmp_path):
        from safetensors.torch import save_file

        save_file(tiny_backbone, tmp_path / "backbone.safetensors")
        model = EchoMENModel.from_backbone_checkpoint(tmp_path / "backbone.safetensors", tiny_config)
        self.assert_same_encoder(model, tiny_backbone)

    def test_echonet_checkpoint_brings_its_regression_head(self, tiny_backbone, tiny_config, tmp_path):
        tiny_backbone |= {"fc.weight": torch.randn(1, 8), "fc.bias": torch.tensor([54.0])}
        wrapped = {"epoch": 44, "state_dict": {f"module.{name}": value for name, value in tiny_backbone.items()}}
        model = self.load(wrapped, tmp_path, tiny_config)
        self.assert_same_encoder(model, tiny_backbone)
        assert torch.equal(model.regression_head.weight, tiny_backbone["fc.weight"])
        assert model.regression_head.bias.item() == 54.0

    def test_weights_of_another_width(self, tiny_backbone, tmp_path):
        config = EchoMENConfig(depths=(1, 1), hidden_sizes=(4, 16), num_channels=1)
        with pytest.raises(ValueError, match=r"of another shape, such as layer2\.0\..* instead of"):
            self.load(tiny_backbone, tmp_path, config)

    def test_weights_of_another_network(self, tiny_config, tmp_path):
        message = r"missing, such as stem.0.weight .*unknown, such as blocks.0.weight \(3,\).*torchvision's names"
        with pytest.raises(ValueError, match=message):
            self.load({"blocks.0.weight": torch.zeros(3)}, tmp_path, tiny_config)

    def test_no_state_dictionary(self, tiny_config, tmp_path):
        with pytest.raises(ValueError, match="no state dictionary"):
            self.load({"epoch": 3}, tmp_path, tiny_config)

    def test_pickled_code_is_not_run(self, tiny_config, tmp_path):
        class Harmful:
            def __reduce__(self):
                return (exec, (f"open({str(tmp_path / 'harm')!r}, 'w').close()",))

        with pytest.raises(ValueError, match="run code"):
            self.load({"stem.0.weight": Harmful()}, tmp_path, tiny_config)
        assert not (tmp_path / "harm").exists()

    def test_missing_file_and_text_file(self, tiny_config, tmp_path):
        with pytest.raises(FileNotFoundError, match="No backbone checkpoint at"):
            EchoMENModel.from_backbone_checkpoint(tmp_path / "nothing.pth", tiny_config)
        (tmp_path / "notes.pth").write_text("not weights")
        with pytest.raises(ValueError, match="cannot be read as a weights file"):
            EchoMENModel.from_backbone_checkpoint(tmp_path / "notes.pth", tiny_config)


def test_output_hidden_states_selects_by_index(tiny_model):
    pixel_values = clips(tiny_model.config)
    everything = tiny_model(pixel_values=pixel_values, output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in everything] == [(2, 4, 8, 16, 16), (2, 4, 8, 16, 16), (2, 8, 4, 8, 8)]
    torch.testing.assert_close(everything[-1].mean(dim=(2, 3, 4)), tiny_model(pixel_values=pixel_values).embedding)
    assert tiny_model(pixel_values=pixel_values).hidden_states is None


class TestTrainingDistribution:
    @pytest.fixture
    def model(self):
        model = EchoMENModel(make_tiny_config()).eval()
        size = model.config.embedding_size
        model.set_training_distribution(torch.arange(size) / 10, 4 * torch.eye(size), 3.0)
        return model

    def test_distance_is_that_of_mahalanobis(self, model):
        offset = torch.zeros(model.config.embedding_size)
        offset[:2] = torch.tensor([3.0, 4.0])
        mean = torch.arange(len(offset)) / 10
        assert model.training_distribution.unlikeness(mean) == pytest.approx(0, abs=1e-6)
        assert model.training_distribution.unlikeness(mean + offset) == pytest.approx(2 * 5 / 3, rel=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_it_is_saved_with_the_model_in_single_precision(self, model, tmp_path, dtype):
        model.save_pretrained(tmp_path)
        loaded = EchoMENModel.from_pretrained(tmp_path, dtype=dtype)
        stored, found = model.training_distribution, loaded.training_distribution
        assert found.mean.dtype == torch.float32
        assert torch.equal(found.mean, stored.mean)
        assert torch.equal(found.precision, stored.precision)
        assert found.usual_distance == 3.0

    def test_it_can_be_forgotten(self, model, tmp_path):
        model.set_training_distribution(None)
        model.save_pretrained(tmp_path)
        assert EchoMENModel.from_pretrained(tmp_path).training_distribution is None

    def test_a_video_far_from_it_is_doubtful_and_farther_unusable(self):
        model = EchoMENModel(make_tiny_config()).eval()
        size = model.config.embedding_size
        clip = {
            "ejection_fraction": torch.tensor([50.0]).double(),
            "regression": torch.tensor([50.0]).double(),
            "expert_predictions": torch.full((1, 3), 50.0).double(),
            "expert_weights": torch.full((1, 3), 1 / 3).double(),
            "embedding": torch.ones(1, size).double(),
        }
        for usual, quality in (
            (size**0.5 * 1.1, "good"),
            (size**0.5 / 1.5, "doubtful"),
            (size**0.5 / 2.5, "unusable"),
        ):
            model.set_training_distribution(torch.zeros(size), torch.eye(size), usual)
            found = average_clips("a", clip, distribution=model.training_distribution)
            assert found.quality == quality
            assert math.isnan(found.ejection_fraction) is (quality == "unusable")
