import pytest

from echomen_hf import EchoMENTrainingArguments, load_echonet_dynamic
from echomen_hf.data import EvaluationClips, TrainingClips


@pytest.fixture(scope="session")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir)


@pytest.fixture
def make_arguments(tmp_path):
    """Arguments of a training that takes seconds; any of them can be overridden."""

    def make(**changes):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "num_train_epochs": 2,
            "stage2_num_train_epochs": 2,
            "per_device_train_batch_size": 6,
            "per_device_eval_batch_size": 8,
            "learning_rate": 1e-4,
            "logging_steps": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 1,
        }
        return EchoMENTrainingArguments(**{**settings, **changes})

    return make


@pytest.fixture
def make_data(videos, tiny_processor):
    """Training and validation clips of the synthetic set."""

    def make(num_views=1, seed=0):
        return (
            TrainingClips(videos["train"], tiny_processor, num_views, crop_padding=3, seed=seed),
            EvaluationClips(videos["validation"], tiny_processor, "windows"),
        )

    return make
