import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoVideoProcessor

import echomen_hf


def test_installed_package_wins(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is echomen_hf.EchoMENConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is echomen_hf.EchoMENModel
    assert type(AutoVideoProcessor.from_pretrained(tmp_path)) is echomen_hf.EchoMENVideoProcessor


def test_checkpoint_of_version_0_1_0_still_loads():
    """Saved by 0.1.0 with all modules at the package's top; the EF was printed by 0.1.0."""
    folder = Path(__file__).parents[1] / "model" / "checkpoint_0_1_0"
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoVideoProcessor.from_pretrained(folder)
    config = model.config
    assert type(model) is echomen_hf.EchoMENModel
    assert (processor.num_frames, processor.num_channels) == (config.num_frames, config.num_channels)
    shape = (1, config.num_frames, config.num_channels, config.image_size, config.image_size)
    pixel_values = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    with torch.inference_mode():
        output = model(pixel_values=pixel_values)
    expected = {
        "ejection_fraction": [55.7991],
        "expert_predictions": [[56.0019, 56.1620, 55.2424]],
        "expert_weights": [[0.3315, 0.3316, 0.3369]],
    }
    for name, values in expected.items():
        torch.testing.assert_close(getattr(output, name), torch.tensor(values), atol=1e-4, rtol=0)


def test_every_public_name_is_there():
    for name in echomen_hf.__all__:
        assert getattr(echomen_hf, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = echomen_hf.nothing


REMOTE = """
import sys
import numpy as np, torch
from transformers import AutoConfig, AutoModel, AutoVideoProcessor
folder, video, dicom, out = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules"), type(model)
assert type(processor).__module__.startswith("transformers_modules"), type(processor)
assert config.hidden_sizes == [4, 8]
with torch.inference_mode():
    found = [model(**processor(path, return_tensors="pt")).ejection_fraction.item() for path in (video, dicom)]
np.save(out, np.array(found))
"""


def test_checkpoint_loads_where_the_package_is_not_installed(
    tiny_model, tiny_processor, echonet_dir, tmp_path, run_without_package
):
    examples = pytest.importorskip("pydicom.examples")
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    video = str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])
    dicom = str(examples.get_path("ybr_color"))
    run_without_package(REMOTE, tmp_path / "model", video, dicom, tmp_path / "found.npy")
    with torch.inference_mode():
        expected = [
            tiny_model(**tiny_processor(path, return_tensors="pt")).ejection_fraction.item() for path in (video, dicom)
        ]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=1e-6)
