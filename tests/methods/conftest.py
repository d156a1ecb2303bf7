import pytest

from echomen_hf import load_echonet_dynamic
from echomen_hf.data import EvaluationClips, TrainingClips, collate_clips, with_pixel_values
from echomen_hf.data.decoded_frames import DecodedFrames
from echomen_hf.methods import fit_method, get_method
from echomen_hf.methods.fitting import initial_model
from echomen_hf.model.modeling_echomen import EchoMENOutput


class RememberedFrames:
    """Frames of videos that were read once, so that a training of many epochs decodes nothing."""

    def __init__(self, processor):
        self.decoded = DecodedFrames(processor)
        self.known = {}

    def read(self, row, indices=None):
        name = row["file_name"]
        if name not in self.known:
            self.known[name] = self.decoded.read(row)
        return self.known[name] if indices is None else self.known[name][indices]


@pytest.fixture
def outputs_of():
    """Function that makes a model's output of the parts that a loss reads."""
    return EchoMENOutput


@pytest.fixture(scope="session")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir)


@pytest.fixture(scope="session")
def frames_of():
    """Function that gives the frames for a processor; all processors here are of one configuration."""
    made = {}

    def give(processor):
        return made.setdefault("frames", RememberedFrames(processor))

    return give


@pytest.fixture
def make_data(videos, tiny_processor, frames_of):
    """Training and validation clips of the synthetic set."""

    def make(num_views=1, seed=0, crop_padding=3):
        frames = frames_of(tiny_processor)
        return (
            TrainingClips(videos["train"], tiny_processor, num_views, crop_padding, seed, frames),
            EvaluationClips(videos["validation"], tiny_processor, "center", frames),
        )

    return make


@pytest.fixture
def tiny_fields(tiny_config):
    """Configuration fields of the tiny model, as a recipe would give them."""
    names = ("depths", "hidden_sizes", "num_channels", "num_frames", "sampling_period", "image_size")
    return {name: getattr(tiny_config, name) for name in (*names, "aggregator_hidden_size", "projection_size")}


@pytest.fixture
def make_trainer_of(make_arguments, make_data, tiny_fields):
    """Function that makes the trainer of a method, set up for a stage, and a batch of four videos for it."""

    def make(name, options=None, stage=1, **changes):
        method = get_method(name)
        args = method.training_arguments(make_arguments(**changes))
        args = args.for_stage(stage, str(args.output_dir))
        train, evaluation = make_data(args.num_views if stage == 1 else 1)
        model = initial_model(method, args.seed, tiny_fields).train()
        trainer = method.make_trainer(options)(model=model, args=args, train_dataset=train, eval_dataset=evaluation)
        trainer.prepare_stage()
        return trainer, with_pixel_values(collate_clips([train[index] for index in range(4)]))

    return make


@pytest.fixture
def run(videos, tiny_fields, tiny_processor, frames_of, make_arguments, tmp_path):
    """Function that trains a method on the synthetic set."""

    def train(method, name="run", *, model_config=None, options=None, stage_1=None, initial_weights=None, **changes):
        return fit_method(
            method,
            videos["train"],
            videos["validation"],
            make_arguments(output_dir=str(tmp_path / name), **changes),
            model_config={**tiny_fields, **(model_config or {})},
            processor=tiny_processor,
            options=options,
            initial_weights=initial_weights,
            stage_1=stage_1,
            crop_padding=3,
            frames=frames_of(tiny_processor),
        )

    return train
