import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    TimesformerVideoProcessor,
    VideoMAEForVideoClassification,
    VideoMAEVideoProcessor,
    ViTConfig,
    VivitVideoProcessor,
    VJEPA2VideoProcessor,
)

from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENVideoProcessor
from echomen_hf.methods.networks.echocotr import UniFormerModel
from echomen_hf.model.video_encoder_echomen import VideoEncoder
from echomen_hf.training.encoder_training import encoder_blocks
from helpers.tiny_encoders import ENCODERS, OF_TRANSFORMERS, tiny_encoder_config


def make_model(name, **fields):
    torch.manual_seed(0)
    return EchoMENModel(EchoMENConfig(encoder_config=tiny_encoder_config(name), **fields)).eval()


def clips(model, batch=2, seed=0):
    config = model.config
    shape = (batch, config.num_frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def processor_of(name):
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return {
        "videomae": lambda: VideoMAEVideoProcessor(**size),
        "timesformer": lambda: TimesformerVideoProcessor(**size),
        "vivit": lambda: VivitVideoProcessor(**size),
        "vjepa2": lambda: VJEPA2VideoProcessor(crop_size=32),
    }[name]()


@pytest.fixture
def save_encoder(tmp_path):
    """Function that saves a video model and its processor as its authors would."""

    def save(name):
        torch.manual_seed(1)
        folder = tmp_path / f"{name}-small"
        AutoModel.from_config(tiny_encoder_config(name)).save_pretrained(folder)
        processor_of(name).save_pretrained(folder)
        return folder

    return save


class TestEncoders:
    @pytest.mark.parametrize("name", ENCODERS)
    def test_shapes_and_gradients(self, name):
        model = make_model(name).train()
        assert (model.config.num_frames, model.config.image_size, model.config.embedding_size) == (4, 32, 16)
        output = model(pixel_values=clips(model), labels=torch.tensor([30.0, 60.0]))
        assert output.embedding.shape == (2, 16)
        assert output.projection.shape == (2, 128)
        # Layer-normalised.
        torch.testing.assert_close(output.embedding.mean(-1), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(output.embedding.std(-1, correction=0), torch.ones(2), atol=1e-2, rtol=0)
        output.loss.backward()
        assert all(parameter.grad is not None for parameter in model.encoder.parameters())

    @pytest.mark.parametrize("name", OF_TRANSFORMERS)
    def test_vector_is_the_mean_of_the_tokens_of_the_model_itself(self, name, save_encoder):
        folder = save_encoder(name)
        model, reference = EchoMENModel.from_encoder(folder), AutoModel.from_pretrained(folder).eval()
        pixel_values = clips(model)
        with torch.no_grad():
            embedding = model.encoder(pixel_values)
            tokens = reference(pixel_values).last_hidden_state
        expected = torch.nn.functional.layer_norm(tokens.mean(dim=1), (16,))
        torch.testing.assert_close(embedding, expected)

    def test_pooler_of_the_model_itself(self):
        model = make_model("vivit", encoder_pooling="pooler")
        pixel_values = clips(model)
        pooled = model.encoder.model(pixel_values).pooler_output
        torch.testing.assert_close(model.encoder(pixel_values), torch.nn.functional.layer_norm(pooled, (16,)))

    def test_uniformer_and_uvt_pool_as_the_rivals_do(self):
        model = make_model("echo_uniformer")
        rival = UniFormerModel(model.config.encoder_config).eval()
        rival.load_state_dict(model.encoder.model.state_dict(), strict=False)
        pixel_values = clips(model)
        expected = torch.nn.functional.layer_norm(rival(pixel_values).embedding, (16,))
        torch.testing.assert_close(model.encoder(pixel_values), expected)
        model = make_model("uvt")
        pixel_values = clips(model)
        pixel_values[1, 2:] = 0  # frames past the end of a short video, which have no share
        features, share = model.encoder.model.features(pixel_values)
        assert share[1].flatten().tolist() == [0.5, 0.5, 0, 0]
        expected = torch.nn.functional.layer_norm((features * share).sum(dim=1), (16,))
        torch.testing.assert_close(model.encoder(pixel_values), expected)

    def test_parts_that_no_vector_depends_on_are_left_out(self):
        names = {name.split(".")[2] for name in make_model("vjepa2").state_dict() if name.startswith("encoder.")}
        assert names == {"encoder"}  # no predictor
        assert not any("pooler" in name for name in make_model("vivit").state_dict())

    @pytest.mark.parametrize("name", ENCODERS)
    def test_saved_and_loaded(self, name, tmp_path):
        model = make_model(name)
        model.save_pretrained(tmp_path)
        loaded, report = EchoMENModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values())
        assert loaded.config.encoder_config.to_dict() == model.config.encoder_config.to_dict()
        pixel_values = clips(model)
        assert torch.equal(loaded(pixel_values=pixel_values).logits, model(pixel_values=pixel_values).logits)

    @pytest.mark.parametrize("name", ["videomae", "timesformer", "vivit", "vjepa2", "uvt"])
    def test_activation_checkpointing_gives_the_same_gradients(self, name):
        model = make_model(name)
        calls = []
        # Hooks of a layer itself stay outside of its checkpoint.
        inside = next(m for m in encoder_blocks(model.encoder)[0].modules() if isinstance(m, torch.nn.Linear))
        inside.register_forward_pre_hook(lambda *_: calls.append(1))

        def gradients():
            model.zero_grad()
            calls.clear()
            model(pixel_values=clips(model)).ejection_fraction.sum().backward()
            return [parameter.grad.clone() for parameter in model.encoder.parameters()], len(calls)

        # In training mode, since layers are not checkpointed otherwise; without dropout nothing is random.
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        plain, once = gradients()
        model.activation_checkpointing_enable()
        checkpointed, twice = gradients()
        assert (once, twice) == (1, 2)
        torch.testing.assert_close(checkpointed, plain)

    def test_encoder_without_checkpointing_says_so(self):
        with pytest.raises(ValueError, match="does not support"):
            make_model("echo_uniformer").activation_checkpointing_enable()

    def test_frozen_encoder(self):
        model = make_model("videomae")
        model.freeze_encoder()
        model.train()
        assert not model.encoder.training and not any(p.requires_grad for p in model.encoder.parameters())

    def test_half_precision_keeps_the_heads_in_full(self, tmp_path):
        model = make_model("videomae")
        model.save_pretrained(tmp_path)
        loaded = EchoMENModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
        assert {parameter.dtype for parameter in loaded.encoder.parameters()} == {torch.bfloat16}
        output = loaded(pixel_values=clips(model))
        assert output.embedding.dtype == loaded.regression_head.weight.dtype == torch.float32
        torch.testing.assert_close(output.embedding, model(pixel_values=clips(model)).embedding, atol=0.05, rtol=0)


class TestPretrained:
    @pytest.mark.parametrize("name", OF_TRANSFORMERS)
    def test_processor_makes_what_that_of_the_encoder_makes(self, name, save_encoder):
        folder = save_encoder(name)
        model = EchoMENModel.from_encoder(folder, sampling_period=1)
        processor = EchoMENVideoProcessor.for_encoder(folder, model.config, do_find_sector=False)
        assert (processor.num_frames, processor.num_channels) == (4, 3)
        video = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
        colour = np.repeat(video[..., None], 3, axis=-1)
        theirs = processor_of(name)
        # V-JEPA 2's cuts the border off, where a heart may be.
        expected = theirs(list(colour), do_resize=False, return_tensors="pt")[theirs.model_input_names[0]]
        found = processor(video, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_weights_of_a_classifier(self, tmp_path):
        torch.manual_seed(1)
        classifier = VideoMAEForVideoClassification(tiny_encoder_config("videomae"))
        classifier.save_pretrained(tmp_path)
        model = EchoMENModel.from_encoder(tmp_path)
        own = model.encoder.model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in classifier.videomae.state_dict().items())
        assert model.config.prediction_head is None

    def test_name_and_licence_without_the_path(self, save_encoder):
        folder = save_encoder("videomae")
        config = EchoMENModel.from_encoder(folder).config
        assert (config.encoder_name_or_path, config.encoder_license) == ("videomae-small", None)
        (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# VideoMAE\n")
        config = EchoMENModel.from_encoder(folder, num_experts=2).config
        assert (config.encoder_license, config.num_experts) == ("cc-by-nc-4.0", 2)
        assert str(folder.parent) not in config.to_json_string()

    def test_incomplete_weights(self, save_encoder):
        folder = save_encoder("videomae")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
        with pytest.raises(ValueError, match=r"videomae-small do not fit its config.json: \d+ tensors are missing"):
            EchoMENModel.from_encoder(folder)

    def test_processor_of_another_size(self, save_encoder):
        folder = save_encoder("videomae")
        model = EchoMENModel.from_encoder(folder)
        VideoMAEVideoProcessor().save_pretrained(folder)
        with pytest.raises(ValueError, match="makes frames of 224 x 224 pixels, and its model takes in 32 x 32"):
            EchoMENVideoProcessor.for_encoder(folder, model.config)


class TestBadInput:
    def test_no_video_model(self):
        with pytest.raises(ValueError, match="'vit' describes no model of videos, since it has no number of frames"):
            EchoMENConfig(encoder_config=ViTConfig())

    def test_unknown_type(self):
        with pytest.raises(ValueError, match="type 'videomea', which transformers does not know"):
            EchoMENConfig(encoder_config={"model_type": "videomea"})

    @pytest.mark.parametrize(
        ("name", "field", "hint"),
        [
            ("videomae", "num_frame", "did you mean 'num_frames'"),
            ("vjepa2", "frame_per_clip", "did you mean 'frames_per_clip'"),
            ("echo_uniformer", "num_frame", "did you mean 'num_frames'"),
            ("videomae", "colour", "check its spelling"),
        ],
    )
    def test_unknown_field(self, name, field, hint):
        with pytest.raises(ValueError, match=f"type '{name}' has no field '{field}'; {hint}"):
            EchoMENConfig(encoder_config={"model_type": name, field: 8})

    @pytest.mark.parametrize("name", ENCODERS)
    def test_stored_fields_of_another_version_of_transformers(self, name, tmp_path):
        fields = tiny_encoder_config(name).to_dict()
        config = EchoMENConfig(encoder_config=fields)
        config.save_pretrained(tmp_path)
        stored = json.loads((tmp_path / "config.json").read_text())
        stored["encoder_config"]["of_a_later_version"] = 1
        (tmp_path / "config.json").write_text(json.dumps(stored))
        loaded = EchoMENConfig.from_pretrained(tmp_path)
        assert (loaded.num_frames, loaded.embedding_size) == (config.num_frames, config.embedding_size) == (4, 16)

    @pytest.mark.parametrize(
        ("name", "changes", "message"),
        [
            ("videomae", {"num_frames": 5}, "2 frames x 16 x 16 pixels, into which 5 frames of 32 x 32 pixels"),
            ("timesformer", {"image_size": 40}, "1 frames x 16 x 16 pixels, into which 4 frames of 40 x 40"),
            ("vivit", {"tubelet_size": (3, 16, 16)}, "3 frames x 16 x 16 pixels, into which 4 frames"),
            ("vjepa2", {"crop_size": 33}, "2 frames x 16 x 16 pixels, into which 4 frames of 33 x 33"),
            ("videomae", {"image_size": (32, 64)}, "32 x 64 pixels; clips of hearts are square"),
        ],
    )
    def test_tokens_that_do_not_fit(self, name, changes, message):
        with pytest.raises(ValueError, match=message):
            EchoMENConfig(encoder_config=tiny_encoder_config(name, **changes))

    @pytest.mark.parametrize("shape", [(2, 6, 3, 32, 32), (2, 4, 3, 48, 48), (2, 4, 3, 32, 48)])
    def test_clips_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"\(vjepa2\) takes in clips of 4 frames x 3 channels x 32 x 32 pixels"):
            make_model("vjepa2")(pixel_values=torch.zeros(shape))

    def test_model_without_a_pooler(self):
        with pytest.raises(ValueError, match="'videomae' has no pooler: leave `encoder_pooling` at 'mean'"):
            VideoEncoder(tiny_encoder_config("videomae"), "pooler")


REMOTE = """
import sys
import numpy as np, torch
from transformers import AutoModel, AutoVideoProcessor
folder, video, out = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules"), type(model)
with torch.inference_mode():
    np.save(out, model(**processor(video, return_tensors="pt")).embedding.numpy())
"""


def test_checkpoint_loads_where_the_package_is_not_installed(echonet_dir, tmp_path, run_without_package):
    model = make_model("videomae")
    processor = EchoMENVideoProcessor.for_model(model.config)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    video = str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])
    run_without_package(REMOTE, tmp_path / "model", video, tmp_path / "found.npy")
    with torch.inference_mode():
        expected = model(**processor(video, return_tensors="pt")).embedding.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=1e-5, atol=1e-6)
