import shutil

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from echomen_hf import load_echonet_dynamic
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.data.layouts.echonet_dynamic import read_volume_tracings
from echomen_hf.methods import get_method
from echomen_hf.methods.networks.uvt import UVTLoss, UVTOutput, masked_squared_error
from echomen_hf.methods.networks.uvt_clips import (
    RepeatedFrames,
    UVTTrainingClips,
    UVTVideoProcessor,
    mirrored_beat,
    phase_of_frames,
)
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from helpers.small_networks import small_config, small_model


class Fixed:
    """A source of randomness that always draws the same."""

    def __init__(self, value):
        self.value = value

    def integers(self, high):
        assert self.value < high
        return self.value


class TestMirroredBeat:
    @pytest.mark.parametrize(
        ("start", "expected"),
        [
            (0, [10, 11, 12, 13, 12, 11, 10, 11]),
            (2, [12, 13, 12, 11, 10, 11, 12, 13]),
            (5, [11, 10, 11, 12, 13, 12, 11, 10]),
        ],
    )
    def test_worked_by_hand(self, start, expected):
        assert mirrored_beat(10, 13, 50.0, ClipSpec(8, 1, 50.0), Fixed(start)).tolist() == expected

    def test_keeps_its_duration_at_another_rate(self):
        """At 25 frames per second every frame of the video is shown twice."""
        frames = mirrored_beat(10, 13, 25.0, ClipSpec(8, 1, 50.0), Fixed(0)).tolist()
        assert frames == [10, 11, 11, 12, 12, 13, 13, 12]

    def test_two_frames(self):
        assert mirrored_beat(4, 5, 50.0, ClipSpec(5, 1, 50.0), Fixed(0)).tolist() == [4, 5, 4, 5, 4]

    def test_every_start_is_drawn(self):
        generator = np.random.default_rng(0)
        first_two = {tuple(mirrored_beat(0, 2, 50.0, ClipSpec(2, 1, 50.0), generator)) for _ in range(100)}
        assert first_two == {(0, 1), (1, 2), (2, 1), (1, 0)}


class TestPhase:
    def test_worked_by_hand(self):
        phase = phase_of_frames(np.array([3, 4, 5, 6, 7, -1]), (6, 4))
        np.testing.assert_array_equal(phase, np.array([np.nan, -1, 0, 1, np.nan, np.nan], dtype=np.float32))

    def test_unknown(self):
        assert np.isnan(phase_of_frames(np.arange(4), None)).all()

    def test_error_of_what_is_known(self):
        predictions = torch.tensor([[0.5, 0.0], [1.0, 0.2]], requires_grad=True)
        error = masked_squared_error(predictions, torch.tensor([[1.0, torch.nan], [-1.0, torch.nan]]))
        assert error.item() == pytest.approx((0.25 + 4) / 2)
        error.backward()
        assert predictions.grad.tolist() == [[-0.5, 0.0], [2.0, 0.0]]

    def test_error_of_nothing_is_zero_and_has_a_gradient(self):
        predictions = torch.ones(2, 3, requires_grad=True)
        error = masked_squared_error(predictions, torch.full((2, 3), torch.nan))
        error.backward()
        assert error.item() == 0
        assert predictions.grad.tolist() == [[0.0] * 3] * 2


@pytest.fixture
def clips_of(frames_of):
    """Function that makes training clips of videos."""

    def make(rows, **options):
        processor = UVTVideoProcessor.for_model(small_config("uvt"), **options)
        return UVTTrainingClips(rows, processor, crop_padding=2, seed=5, frames=frames_of(processor))

    return make


class TestTrainingClips:
    def test_beat_is_mirrored_between_the_traced_frames(self, videos, clips_of, echonet_dir):
        clips, tracings = clips_of(videos["train"]), read_volume_tracings(echonet_dir)
        for index in range(5):
            row = videos["train"][index]
            tracing = tracings[row["file_name"]]
            ends = sorted((tracing.end_diastolic_frame, tracing.end_systolic_frame))
            drawn = clips.draw_frames(row, np.random.default_rng((5, 0, index)))
            assert ends[0] <= drawn.min()
            assert drawn.max() <= ends[1]
            item = clips[index]
            assert not item["phase_labels"].isnan().any()
            at_end = {tracing.end_diastolic_frame: 1.0, tracing.end_systolic_frame: -1.0}
            assert item["phase_labels"].tolist() == [at_end.get(frame, 0.0) for frame in drawn.tolist()]
            stored = clips.frames.read(row)
            assert np.array_equal(item["frames"].numpy(), stored[drawn])

    def test_both_ends_of_the_beat_are_seen(self, videos, clips_of):
        clips = clips_of(videos["train"])
        seen = set()
        for epoch in range(10):
            clips.set_epoch(epoch)
            seen.update(clips[0]["phase_labels"].tolist())
        assert seen == {-1.0, 0.0, 1.0}

    def test_clips_of_the_video_know_the_phase_within_the_beat(self, videos, clips_of):
        clips = clips_of(videos["train"], training_clip="video")
        for index in range(5):
            drawn = clips.draw_frames(videos["train"][index], np.random.default_rng((5, 0, index)))
            present = drawn[drawn >= 0]
            assert (np.diff(present) > 0).all()
        labels = torch.stack([clips[index]["phase_labels"] for index in range(5)])
        assert labels.isnan().any()
        assert (~labels.isnan()).any()

    def test_data_without_tracings(self, echonet_dir, clips_of, tmp_path):
        folder = tmp_path / "untraced"
        shutil.copytree(echonet_dir, folder)
        (folder / "VolumeTracings.csv").unlink()
        clips = clips_of(load_echonet_dynamic(folder)["train"])
        batch = with_pixel_values(collate_clips([clips[0], clips[1]]))
        assert batch["phase_labels"].isnan().all()
        output = small_model("uvt").train()(batch["pixel_values"], phase_labels=batch["phase_labels"])
        assert output.phase_loss.item() == 0

    def test_same_epoch_draws_the_same(self, videos, clips_of):
        one, two = clips_of(videos["train"]), clips_of(videos["train"])
        for name, value in one[3].items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(), two[3][name].nan_to_num()), name
        two.set_epoch(1)
        assert not torch.equal(one[3]["frames"], two[3]["frames"])

    def test_source_is_asked_for_each_frame_once_and_in_order(self):
        class Source:
            def read(self, row, indices=None):
                assert indices is None or (np.diff(indices) > 0).all()
                return np.arange(10, dtype=np.uint8).reshape(-1, 1, 1)[indices if indices is not None else slice(None)]

        frames = RepeatedFrames(Source())
        assert frames.read({}, np.array([3, 2, 3, 7])).ravel().tolist() == [3, 2, 3, 7]
        assert len(frames.read({})) == 10


class TestProcessor:
    def test_round_trip(self, tmp_path):
        config = small_config("uvt")
        UVTVideoProcessor.for_model(config, training_clip="video", image_mean=[30.0]).save_pretrained(tmp_path)
        loaded = UVTVideoProcessor.from_pretrained(tmp_path)
        assert (loaded.training_clip, loaded.image_mean, loaded.num_frames) == ("video", [30.0], 8)
        assert UVTVideoProcessor().training_clip == "mirrored_beat"

    def test_unknown_rule_is_refused(self):
        with pytest.raises(ValueError, match="`training_clip` must be 'mirrored_beat' or 'video', got 'beat'"):
            UVTVideoProcessor(training_clip="beat")

    def test_belongs_to_the_method(self):
        assert get_method("uvt").processor_class is UVTVideoProcessor
        assert get_method("uvt").training_clips is UVTTrainingClips


class TestModel:
    @pytest.fixture
    def clips(self):
        return torch.randn(2, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def test_phase_of_every_frame(self, clips):
        with torch.no_grad():
            output = small_model("uvt")(clips)
        assert output.phase.shape == (2, 8)
        assert output.phase.abs().max() < 1
        assert output.phase_loss is None

    def test_order_of_frames_does_not_matter_to_the_ejection_fraction(self, clips):
        """There is no position embedding."""
        model, order = small_model("uvt"), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
        with torch.no_grad():
            given, shuffled = model(clips), model(clips[:, order])
        torch.testing.assert_close(shuffled.ejection_fraction, given.ejection_fraction, rtol=0, atol=1e-4)
        torch.testing.assert_close(shuffled.phase, given.phase[:, order], rtol=0, atol=1e-5)
        assert given.phase.std(dim=1).min() > 1e-4

    def test_frames_that_a_video_does_not_have_take_no_part(self, clips):
        model = small_model("uvt")
        filled = torch.cat([clips, torch.zeros(2, 5, 1, 32, 32)], dim=1)
        with torch.no_grad():
            expected, output = model(clips), model(filled)
        torch.testing.assert_close(output.ejection_fraction, expected.ejection_fraction, rtol=0, atol=1e-4)
        torch.testing.assert_close(output.phase[:, :8], expected.phase, rtol=0, atol=1e-5)
        black = torch.full((2, 5, 1, 32, 32), -0.65)
        with torch.no_grad():
            other = model(torch.cat([clips, black], dim=1))
        assert not torch.allclose(other.ejection_fraction, expected.ejection_fraction, atol=1e-3)

    def test_clip_of_nothing_but_zeros_has_an_estimate(self):
        with torch.no_grad():
            assert small_model("uvt")(torch.zeros(1, 8, 1, 32, 32)).ejection_fraction.isfinite().all()

    def test_whole_video_of_any_length(self, clips):
        with torch.no_grad():
            assert small_model("uvt")(clips.repeat(1, 5, 1, 1, 1)[:, :37]).phase.shape == (2, 37)

    def test_estimate_is_the_mean_over_frames_of_all_hidden_states(self, clips):
        model = small_model("uvt")
        states = []
        model.frame_encoder.register_forward_hook(lambda module, args, output: states.append(output))
        for layer in model.transformer.layer:
            layer.register_forward_hook(lambda module, args, output: states.append(output))
        with torch.no_grad():
            output = model(clips)
            assert len(states) == 3
            per_frame = model.ejection_fraction_head(torch.stack(states).mean(dim=0)).sigmoid().squeeze(-1)
        torch.testing.assert_close(output.ejection_fraction, 100 * per_frame.mean(dim=1))

    def test_eager_attention_gives_the_same(self, clips, tmp_path):
        model = small_model("uvt")
        model.save_pretrained(tmp_path)
        eager = type(model).from_pretrained(tmp_path, attn_implementation="eager").eval()
        assert eager.transformer.config._attn_implementation == "eager"
        clips[0, 5:] = 0.0
        with torch.no_grad():
            torch.testing.assert_close(
                eager(clips).ejection_fraction, model(clips).ejection_fraction, rtol=0, atol=1e-4
            )

    def test_gradient_checkpointing_gives_the_same_gradients(self, clips):
        gradients = []
        for enabled in (False, True):
            model = small_model("uvt").train()
            if enabled:
                model.activation_checkpointing_enable()
            model(clips, labels=torch.tensor([40.0, 60.0])).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, msg=name)

    def test_frames_that_cannot_be_halved_are_refused(self):
        with pytest.raises(StrictDataclassClassValidationError, match="must be a multiple of 4, got 30"):
            small_config("uvt", image_size=30)
        with pytest.raises(StrictDataclassClassValidationError, match="multiple of `num_attention_heads` 3"):
            small_config("uvt", num_attention_heads=3)


class TestLoss:
    def test_worked_by_hand(self):
        """Errors of 10 and 20 points: 5 x (0.01 + 0.04) / 2, plus the error of the phase."""
        outputs = UVTOutput(
            regression=torch.tensor([50.0, 60.0]), phase=torch.zeros(2, 4), phase_loss=torch.tensor(0.25)
        )
        value, terms = UVTLoss(None)(None, outputs, torch.tensor([60.0, 40.0]), 1)
        assert terms["loss_regression"].item() == pytest.approx(0.025)
        assert value.item() == pytest.approx(0.125 + 0.25)

    def test_phase_is_left_out_where_it_is_not_labelled(self):
        outputs = UVTOutput(regression=torch.tensor([50.0]), phase=torch.ones(1, 4))
        value, terms = UVTLoss(None)(None, outputs, torch.tensor([60.0]), 1)
        assert value.item() == pytest.approx(0.05)
        assert terms["loss_phase"].item() == 0
