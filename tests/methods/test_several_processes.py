import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echomen_hf import EchoMENConfig
from echomen_hf.methods import get_method, list_methods


METHODS = [get_method(name) for name in list_methods()]
NAMES = [m.name for m in METHODS if m.loss is not None and m.model_class.config_class is EchoMENConfig]


@pytest.mark.slow
def test_two_processes_give_the_gradients_and_statistics_of_one(tiny_model, echonet_dir, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    script = Path(__file__).parents[1] / "helpers" / "gradients_of_methods.py"
    common = [str(script), str(echonet_dir), str(tmp_path), *NAMES]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([sys.executable, *common], check=True, capture_output=True, timeout=240)
    subprocess.run([*launch, *common], check=True, capture_output=True, timeout=240)
    one = torch.load(tmp_path / "gradients-1.pt", weights_only=True)
    two = torch.load(tmp_path / "gradients-2.pt", weights_only=True)
    assert one.keys() == two.keys()
    for name in NAMES:
        assert one[f"{name}.encoder.stem.0.weight"].abs().max() > 0
    assert one["ddir.feature_statistics.seen"].sum() == 6
    assert one["ddir.feature_statistics.variance"].any(dim=1).sum() == 2
    assert one["balanced_mse.noise_scale.log_factor"].abs() > 0
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
