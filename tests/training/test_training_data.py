"""What a training reads: a data set or a simulation."""

import sys

import numpy as np
import pytest

from echomen_hf.model.video_source_echomen import VideoReadError
from echomen_hf.simulation import SimulatedFrames
from echomen_hf.training import DataArguments, ModelArguments, SimulationArguments
from echomen_hf.training.recipes import parse_recipe
from echomen_hf.training.training_data import load_training_data
from helpers.data_sets import known_frames, write_mimic, write_nifti, write_pediatric, write_table


def test_data_set_is_loaded_with_its_checksum(echonet_dir, make_arguments, tiny_processor):
    data = load_training_data(
        DataArguments(data_dir=str(echonet_dir)), SimulationArguments(), make_arguments(), tiny_processor
    )
    assert len(data.train) > len(data.val) > 0
    assert data.frames is None
    assert data.description.keys() == {"file_list_sha256"}
    assert len(data.description["file_list_sha256"]) == 64


@pytest.mark.parametrize("fold", [0, 2])
def test_any_layout_is_loaded_and_recorded(tmp_path, make_arguments, tiny_processor, fold):
    data_args = DataArguments(data_dir=str(write_pediatric(tmp_path)), view="A4C", fold=fold)
    data = load_training_data(data_args, SimulationArguments(), make_arguments(), tiny_processor)
    assert (len(data.train), len(data.val)) == (2, 1)
    assert data.val[0]["file_name"][-1] == str(fold + 1)
    assert data.description["layout_options"] == {"view": "A4C", "fold": fold}


def test_a_table_is_divided_for_a_training_by_its_flags(hospital_table, make_arguments, tiny_processor):
    data_args, _ = parse_recipe(
        (DataArguments, ModelArguments),
        ["--data_dir", str(hospital_table), "--columns", "path=where,ejection_fraction=LVEF", "--layout", "table"],
    )
    data = load_training_data(data_args, SimulationArguments(), make_arguments(), tiny_processor)
    assert (len(data.train), len(data.val)) == (14, 3)
    assert data.description["layout_options"]["columns"] == "path=where,ejection_fraction=LVEF"


@pytest.fixture
def hospital_table(tmp_path):
    rows = []
    for number in range(20):
        write_nifti(tmp_path / f"{number}.nii", known_frames(4, 32, 32, seed=number % 5), time_step=0.02, units=10)
        rows.append({"where": f"{number}.nii", "LVEF": 40 + number})
    return write_table(tmp_path / "list.csv", rows)


def test_data_without_training_videos_are_told_how_to_be_divided(tmp_path, make_arguments, tiny_processor):
    data_args = DataArguments(data_dir=str(write_mimic(tmp_path)))
    with pytest.raises(ValueError, match="no train videos.*or divide all by `--split_by patient`"):
        load_training_data(data_args, SimulationArguments(), make_arguments(), tiny_processor)


def test_other_decoder_reads_the_videos_and_is_part_of_the_run(echonet_dir, make_arguments, tiny_processor):
    settings = DataArguments(data_dir=str(echonet_dir), decoder="simplejpeg")
    data = load_training_data(settings, SimulationArguments(), make_arguments(), tiny_processor)
    assert data.frames.decoder == data.description["decoder"] == "simplejpeg"
    assert data.frames.read(data.train[0], np.array([2, 4])).shape == (2, 32, 32)


def test_decoder_that_is_not_installed_is_refused_first(make_arguments, tiny_processor, monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    settings = DataArguments(data_dir="does not exist", decoder="simplejpeg")
    with pytest.raises(VideoReadError, match="simplejpeg: is not installed"):
        load_training_data(settings, SimulationArguments(), make_arguments(), tiny_processor)


def test_simulation_has_other_hearts_on_val_and_draws_clips_anew_each_epoch(make_arguments, tiny_processor):
    settings = SimulationArguments(simulated_videos=3, simulated_val_videos=2)
    data = load_training_data(DataArguments(), settings, make_arguments(), tiny_processor)
    assert (len(data.train), len(data.val)) == (3, 2)
    assert {tuple(row["seed"]) for row in data.train}.isdisjoint({tuple(row["seed"]) for row in data.val})
    clips = data.make_clips(data.train, tiny_processor, 1, 2, 7, data.frames)
    first = clips[0]
    clips.set_epoch(1)
    second = clips[0]
    assert first["labels"] == second["labels"]
    assert (first["frames"] != second["frames"]).float().mean() > 0.2
    assert data.description["simulation.simulation_profile"] == "wide"


@pytest.mark.parametrize(("folder", "videos"), [(None, 0), ("folder", 5)])
def test_either_a_data_set_or_a_simulation(folder, videos, make_arguments, tiny_processor):
    with pytest.raises(ValueError, match="either `--data_dir`.* or `--simulated_videos`"):
        load_training_data(
            DataArguments(data_dir=folder),
            SimulationArguments(simulated_videos=videos),
            make_arguments(),
            tiny_processor,
        )


@pytest.mark.parametrize("settings", [{"frame_cache": "cache"}, {"decoder": "simplejpeg"}])
def test_settings_that_a_simulation_has_no_use_for_are_refused(settings, make_arguments, tiny_processor):
    with pytest.raises(ValueError, match="no use for simulated videos"):
        load_training_data(
            DataArguments(**settings),
            SimulationArguments(simulated_videos=5),
            make_arguments(),
            tiny_processor,
        )


def test_mirrored_and_reversed_videos_are_the_same_heart():
    row = {"file_name": "x", "ejection_fraction": 50.0, "num_frames": 40, "fps": 50.0, "seed": [1, 2]}
    plain, mirrored, turned = (
        SimulatedFrames("wide", 32, mirrored_share=m, reversed_share=r).read(row, np.array([0, 3, 39]))
        for m, r in ((0, 0), (1, 0), (0, 1))
    )
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
    backwards = SimulatedFrames("wide", 32).read(row, np.array([0, 36, 39]))
    np.testing.assert_array_equal(turned, backwards[::-1])
