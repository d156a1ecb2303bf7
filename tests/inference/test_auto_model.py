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
