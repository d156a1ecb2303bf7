import json

from benchmarks.measurement import write_measurement
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.runs.files import weights_checksum


def test_table_is_printed_and_written_and_numbers_name_their_weights(tmp_path, capsys):
    write_measurement(tmp_path / "new" / "rates", "| a |", SMALL_MODEL_FOLDER, {"settings": {"seed": 3}})
    assert capsys.readouterr().out == (tmp_path / "new" / "rates.md").read_text() == "| a |\n"
    document = json.loads((tmp_path / "new" / "rates.json").read_text())
    assert document.keys() == {"settings", "model_sha256", "versions"}
    assert document["settings"] == {"seed": 3}
    assert document["model_sha256"] == weights_checksum(SMALL_MODEL_FOLDER)
