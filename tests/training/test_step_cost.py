import pytest
import torch

from echomen_hf.training import step_cost
from echomen_hf.training.step_cost import StepSetting, measure, measure_in_new_process, ready_made_step


TINY = {"depths": [1, 1], "hidden_sizes": [4, 8], "num_channels": 1, "num_frames": 8, "image_size": 32}
WIDE = {**TINY, "hidden_sizes": [64, 64], "image_size": 112}


@pytest.fixture
def at_once(monkeypatch):
    """Settings are measured in this process, which keeps its allocator and its limits."""
    asked = []
    monkeypatch.setattr(step_cost, "keep_large_blocks", asked.append)
    return asked


@pytest.mark.parametrize("switches", [{}, {"bf16": True, "gradient_accumulation_steps": 2}])
def test_every_step_but_the_first_is_timed(switches, at_once):
    cost = measure(StepSetting(4, model_config=TINY, switches=switches, num_steps=2, num_threads=1))
    assert len(cost.step_seconds) == 2
    assert 0 < cost.median_seconds == pytest.approx(sum(cost.step_seconds) / 2)
    assert cost.peak_bytes >= cost.bytes_before > 2**26
    assert not cost.failure


def test_lack_of_memory_is_a_result():
    setting = StepSetting(16, model_config=WIDE, num_steps=1, num_threads=1, memory_limit=900 * 2**20)
    cost = measure_in_new_process(setting)
    assert cost.failure == "needs more memory than 0.9 GiB"
    assert cost.step_seconds == []
    assert cost.median_seconds != cost.median_seconds


def test_other_errors_are_not_hidden():
    with pytest.raises(RuntimeError, match="5 videos cannot be accumulated in 2 equal"):
        measure_in_new_process(StepSetting(5, model_config=TINY, switches={"gradient_accumulation_steps": 2}))


@pytest.mark.parametrize("switches", [{}, {"bf16": True, "channels_last": True, "keep_large_blocks": True}])
def test_step_without_trainer_lowers_the_loss(switches, at_once):
    step = ready_made_step(StepSetting(4, 1, TINY, switches, "encoder"))
    first, second = step(), step()
    assert 100 < first < 1000  # labels from 20 to 75 %, predictions near 55.6 %
    assert second < first
    assert at_once == ["keep_large_blocks" in switches]


def test_reference_has_no_switches():
    with pytest.raises(ValueError, match="torchvision.*no switches.*bf16"):
        ready_made_step(StepSetting(1, 1, TINY, {"bf16": True}, "torchvision"))
    with pytest.raises(ValueError, match="encoder.*no switches.*activation_checkpointing"):
        ready_made_step(StepSetting(1, 1, TINY, {"activation_checkpointing": True}, "encoder"))


def test_reference_and_encoder_are_networks_of_one_size(monkeypatch):
    sizes = []
    original = torch.optim.SGD

    def sgd(parameters, **options):
        parameters = list(parameters)
        sizes.append(sum(parameter.numel() for parameter in parameters))
        return original(parameters, **options)

    monkeypatch.setattr(torch.optim, "SGD", sgd)
    for implementation in ("torchvision", "encoder"):
        ready_made_step(StepSetting(1, 1, {"num_frames": 8, "image_size": 32}, {}, implementation))
    assert sizes[0] == sizes[1] > 31e6
