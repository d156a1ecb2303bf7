import shutil

import pytest

from echomen_hf import load_echonet_dynamic
from echomen_hf.comparison import read_settings
from echomen_hf.comparison.record import claim_results_folder, describe_comparison, read_record
from echomen_hf.data import load_rows
from helpers.data_sets import write_pediatric


@pytest.fixture
def describe(make_settings, echonet_dir):
    videos = load_echonet_dynamic(echonet_dir)

    def make(**changes):
        return describe_comparison(make_settings(**changes), videos)

    return make


@pytest.fixture
def claimed(describe, tmp_path):
    folder = tmp_path / "results"
    claim_results_folder(folder, describe())
    return folder


def refused(folder, description, message):
    before = (folder / "comparison.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        claim_results_folder(folder, description)
    assert (folder / "comparison.json").read_bytes() == before


def test_what_is_recorded(claimed, echonet_dir):
    found = read_record(claimed)
    assert found["data"]["synthetic"] is True
    assert found["data"]["videos"].keys() == {"train", "validation", "test"}
    assert len(found["data"]["file_list_sha256"]) == 64
    assert {"torch", "transformers", "echomen_hf"} <= found["versions"].keys()
    assert found["settings"]["training"]["learning_rate"] == 1e-2
    assert "seed" not in found["settings"]["training"]


def test_layout_of_the_data_is_part_of_the_record(tmp_path):
    flags = ["--data_dir", str(write_pediatric(tmp_path)), "--view", "A4C", "--fold", "0"]
    settings = read_settings(None, flags)
    found = describe_comparison(settings, load_rows(settings.read_data_set()))
    assert found["data"]["videos"] == {"train": 2, "validation": 1, "test": 1}
    assert (found["settings"]["view"], found["settings"]["fold"]) == ("A4C", 0)


def test_same_comparison_continues(claimed, describe):
    claim_results_folder(claimed, describe())


def test_other_settings(claimed, describe):
    refused(claimed, describe(learning_rate=0.5), r"settings.training.learning_rate was 0.01 and is 0.5")
    refused(claimed, describe(protocol="all"), r"settings.protocol was \"center\" and is \"all\"")
    refused(claimed, describe(schedule="published"), "settings.schedule")


def test_other_versions(claimed, describe, monkeypatch):
    monkeypatch.setattr("echomen_hf.runs.installed_versions.version", lambda package: "99.0")
    refused(claimed, describe(), 'versions.datasets was .* and is "99.0"')


def test_another_data_set(claimed, make_settings, echonet_dir, tmp_path):
    other = shutil.copytree(echonet_dir, tmp_path / "other")
    # The same files in another place are the same data.
    claim_results_folder(claimed, describe_comparison(make_settings(data_dir=other), load_echonet_dynamic(other)))
    lines = (other / "FileList.csv").read_text().splitlines(keepends=True)
    (other / "FileList.csv").write_text("".join(lines[:-1]))
    description = describe_comparison(make_settings(data_dir=other), load_echonet_dynamic(other))
    refused(claimed, description, "data.file_list_sha256 was")


def test_folder_of_something_else(describe, tmp_path):
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(ValueError, match="not empty and holds no comparison.json"):
        claim_results_folder(tmp_path, describe())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_damaged_record(claimed, describe):
    (claimed / "comparison.json").write_text("{")
    refused(claimed, describe(), "comparison.json is not JSON")
