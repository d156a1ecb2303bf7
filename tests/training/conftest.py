import pytest

from echomen_hf import load_echonet_dynamic
from echomen_hf.data import EvaluationClips, TrainingClips


@pytest.fixture(scope="session")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir)


@pytest.fixture
def make_data(videos, tiny_processor):
    """Training and validation clips of the synthetic set."""

    def make(num_views=1, seed=0):
        return (
            TrainingClips(videos["train"], tiny_processor, num_views, crop_padding=3, seed=seed),
            EvaluationClips(videos["validation"], tiny_processor, "windows"),
        )

    return make
