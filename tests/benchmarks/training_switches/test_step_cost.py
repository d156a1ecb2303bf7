import pytest

from benchmarks.training_switches.step_cost import StepSetting, measure, measure_in_new_process


TINY = {"depths": [1, 1], "hidden_sizes": [4, 8], "num_channels": 1, "num_frames": 8, "image_size": 32}
WIDE = {**TINY, "hidden_sizes": [64, 64], "image_size": 112}


@pytest.mark.parametrize("switches", [{}, {"bf16": True, "gradient_accumulation_steps": 2}])
def test_every_step_but_the_first_is_timed(switches):
    cost = measure(StepSetting(4, model_config=TINY, switches=switches, num_steps=2, num_threads=1))
    assert len(cost.step_seconds) == 2
    assert 0 < cost.median_seconds == pytest.approx(sum(cost.step_seconds) / 2)
    assert cost.peak_bytes >= cost.bytes_before > 2**26
    assert not cost.failure


@pytest.mark.slow
def test_lack_of_memory_is_a_result():
    setting = StepSetting(16, model_config=WIDE, num_steps=1, num_threads=1, memory_limit=256 * 2**20)
    cost = measure_in_new_process(setting)
    assert cost.failure == "needs more memory than 0.2 GiB"
    assert cost.step_seconds == []
    assert cost.median_seconds != cost.median_seconds


@pytest.mark.slow
def test_other_errors_are_not_hidden():
    with pytest.raises(RuntimeError, match="5 videos cannot be accumulated in 2 equal"):
        measure_in_new_process(StepSetting(5, model_config=TINY, switches={"gradient_accumulation_steps": 2}))
