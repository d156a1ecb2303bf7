import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from echomen_hf.inference import load_checkpoint


def test_packaged_model_is_the_trained_one_without_its_code(load_script, trained, tmp_path):
    folder, logs = tmp_path / "packaged", tmp_path / "logs"
    load_script("package_small_model").main(["--runs", str(trained), "--output", str(folder), "--logs", str(logs)])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "run.json",
        "video_preprocessor_config.json",
    ]
    packaged, processor = load_checkpoint(folder)
    original, _ = load_checkpoint(trained)
    stored = load_file(folder / "model.safetensors")
    for name, value in original.state_dict().items():
        loaded = packaged.state_dict()[name]
        assert loaded.dtype == value.dtype
        if name.startswith("encoder.") and value.ndim == 5:
            assert stored[name].dtype == torch.float16
            assert torch.equal(loaded, value.half().float())
        else:
            assert torch.equal(loaded, value)
    assert packaged.config.interval_calibration == original.config.interval_calibration
    assert not hasattr(packaged.config, "auto_map")
    assert processor.image_mean is not None
    state = json.loads((trained / "stage2" / "trainer_state.json").read_text())
    log = pd.read_csv(logs / f"{trained.name}_stage2.csv")
    assert log["eval_mae"].iloc[-1] == pytest.approx(
        [entry["eval_mae"] for entry in state["log_history"] if "eval_mae" in entry][-1], rel=1e-5
    )
    assert not [name for name in log if name.endswith("_runtime")]


def test_a_model_too_large_for_the_package_is_refused(load_script, trained, tmp_path, monkeypatch):
    script = load_script("package_small_model")
    monkeypatch.setattr(script, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="has weights of .* MB; the package takes 0.001 MB"):
        script.main(["--runs", str(trained), "--output", str(tmp_path / "packaged")])
    with pytest.raises(ValueError, match="nothing holds no finished training"):
        script.main(["--runs", str(tmp_path / "nothing"), str(trained), "--output", str(tmp_path / "packaged")])
    assert not (tmp_path / "packaged").exists()
