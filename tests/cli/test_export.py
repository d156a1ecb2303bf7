import json
from importlib.util import find_spec

import pytest

from echomen_hf.cli import invoke


pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="extra openvino")


def test_bf16_on_validation_videos(trained, echonet_dir, tmp_path, capsys):
    output = tmp_path / "bf16"
    status = invoke(
        ["export", str(trained), "--output", str(output), "--precision", "bf16", "--data_dir", str(echonet_dir)]
        + ["--max_videos", "3", "--protocol", "center", "--max_change", "5", "--max_mae_rise", "5"]
    )
    assert status == 0
    record = json.loads((output / "export.json").read_text())
    assert (record["format"], record["precision"]) == ("openvino", "bf16")
    assert record["bound"] == {"max_change": 5.0, "max_mae_rise": 5.0}
    assert (record["error"]["num_videos"], record["error"]["num_clips"]) == (3, 3)
    printed = capsys.readouterr().out
    assert "3 SYNTHETIC videos (3 clips) of the split validation" in printed
    assert f"{record['error']['mae_reference']:.4f} before, {record['error']['mae']:.4f} exported" in printed

    invoke(["predict", "--model", str(output), str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])])
    assert "%" in capsys.readouterr().out


def test_refusal_says_what_to_do(trained, tmp_path):
    with pytest.raises(ValueError, match=r"not written: on 8 clips of noise.*allowed: 0\).*precision fp32"):
        invoke(["export", str(trained), "--output", str(tmp_path / "out"), "--precision", "bf16", "--max_change", "0"])
    assert list(tmp_path.iterdir()) == []


def test_int8_needs_data(trained, tmp_path):
    with pytest.raises(ValueError, match="int8 needs `data_dir`"):
        invoke(["export", str(trained), "--output", str(tmp_path / "out"), "--precision", "int8"])
