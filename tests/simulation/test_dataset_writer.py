import shutil
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from echomen_hf.simulation import dataset_writer, disk_volume, ejection_fraction, write_avi, write_synthetic_echonet


FRAMES = (28, 36)
COLUMNS = ["FileName", "EF", "ESV", "EDV", "FrameHeight", "FrameWidth", "FPS", "NumberOfFrames", "Split"]


def write(folder: Path, num_videos: int = 6, **settings) -> Path:
    settings = {"seed": 7, "num_workers": 1, "progress": False, "frames_range": FRAMES, "image_size": 64, **settings}
    return write_synthetic_echonet(folder, num_videos, **settings)


def decode(path: Path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
        return frames, float(container.streams.video[0].average_rate)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("echonet") / "data", num_videos=30)


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_layout_is_that_of_echonet_dynamic(folder):
    files = pd.read_csv(folder / "FileList.csv")
    assert list(files.columns) == COLUMNS
    assert files["FileName"].str.fullmatch(r"0X[0-9A-F]{16}").all()
    assert files["FileName"].is_unique
    assert set(files["Split"]) == {"TRAIN", "VAL", "TEST"}
    assert files["EF"].is_unique
    assert files["EF"].between(0, 100).all()
    tracings = pd.read_csv(folder / "VolumeTracings.csv")
    assert list(tracings.columns) == ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]
    assert set(tracings["FileName"]) == set(files["FileName"] + ".avi")
    assert "SYNTHETIC" in (folder / "README.txt").read_text()
    assert {path.name for path in (folder / "Videos").iterdir()} == set(tracings["FileName"])


def test_the_table_describes_the_videos(folder):
    files = pd.read_csv(folder / "FileList.csv")
    for row in files.head(8).itertuples():
        frames, fps = decode(folder / "Videos" / f"{row.FileName}.avi")
        assert frames.shape == (row.NumberOfFrames, row.FrameHeight, row.FrameWidth) == (row.NumberOfFrames, 64, 64)
        assert fps == row.FPS
    assert files["NumberOfFrames"].between(*FRAMES).all()


def test_volumes_and_ejection_fraction_follow_from_the_tracings(folder):
    files = pd.read_csv(folder / "FileList.csv").set_index("FileName")
    tracings = pd.read_csv(folder / "VolumeTracings.csv")
    for name, rows in tracings.groupby("FileName", sort=False):
        row = files.loc[name.removesuffix(".avi")]
        phases = [group[["X1", "Y1", "X2", "Y2"]].to_numpy() for _, group in rows.groupby("Frame", sort=False)]
        assert [len(phase) for phase in phases] == [21, 21]
        assert rows["Frame"].between(0, row["NumberOfFrames"] - 1).all()
        in_pixels = [disk_volume(phase) for phase in phases]
        assert row["EF"] == pytest.approx(ejection_fraction(*in_pixels), abs=1e-9)
        # the scale from pixels to mL is the same at both phases
        assert row["EDV"] / in_pixels[0] == pytest.approx(row["ESV"] / in_pixels[1], rel=1e-9)


def test_the_first_row_of_a_tracing_is_the_long_axis_and_the_chords_are_perpendicular_to_it(folder):
    tracings = pd.read_csv(folder / "VolumeTracings.csv")
    for _, rows in tracings.groupby(["FileName", "Frame"]):
        lines = rows[["X1", "Y1", "X2", "Y2"]].to_numpy()
        directions = lines[:, 2:] - lines[:, :2]
        assert np.abs(directions[1:] @ directions[0]).max() < 1e-4
        assert np.linalg.norm(directions[0]) > np.linalg.norm(directions[1:], axis=1).max()


def test_ejection_fractions_are_spread_as_in_echonet_dynamic_even_in_a_small_set(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_writer, "write_avi", lambda path, frames, fps: path.touch())
    monkeypatch.setattr(
        dataset_writer,
        "simulate_echo",
        lambda rng, **kwargs: _simulate_without_rendering(rng, **{**kwargs, "render": False}),
    )
    folder = write(tmp_path / "data", num_videos=200)
    files = pd.read_csv(folder / "FileList.csv")
    assert files["EF"].mean() == pytest.approx(55.8, abs=1.0)
    assert files["EF"].std() == pytest.approx(12.4, abs=1.0)
    assert (files["EF"] < 40).sum() == pytest.approx(200 * 948 / 7465, abs=3)
    assert files["Split"].value_counts().to_dict() == {"TRAIN": 149, "VAL": 26, "TEST": 25}
    for column in ("EDV", "NumberOfFrames", "FPS"):
        assert abs(files["EF"].corr(files[column])) < 0.22  # 3 standard errors at 200 videos


_simulate_without_rendering = dataset_writer.simulate_echo


def test_brightness_does_not_tell_the_ejection_fraction(folder):
    files = pd.read_csv(folder / "FileList.csv")
    brightness = [decode(folder / "Videos" / f"{name}.avi")[0].mean() for name in files["FileName"]]
    assert abs(np.corrcoef(files["EF"], brightness)[0, 1]) < 0.5  # 3 standard errors at 30 videos


def test_content_depends_on_seed_and_index_only(folder, tmp_path):
    fewer = write(tmp_path / "fewer", num_videos=4)
    for path in (fewer / "Videos").iterdir():
        assert path.read_bytes() == (folder / "Videos" / path.name).read_bytes()
    other_seed = write(tmp_path / "other", num_videos=4, seed=8)
    assert not {path.name for path in (other_seed / "Videos").iterdir()} & {
        path.name for path in (folder / "Videos").iterdir()
    }


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(tmp_path):
    one = write(tmp_path / "one", num_videos=4, num_workers=1)
    two = write(tmp_path / "two", num_videos=4, num_workers=2)
    assert contents(one) == contents(two)


def test_a_complete_data_set_is_left_as_it_is(copy, monkeypatch):
    monkeypatch.setattr(dataset_writer, "simulate_echo", lambda *args, **kwargs: pytest.fail("simulated again"))
    assert write(copy, num_videos=30) == copy


def test_an_interrupted_run_leaves_no_file_list_and_can_be_continued(folder, tmp_path, monkeypatch):
    written = []

    def write_three(path, frames, fps):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_avi(path, frames, fps)

    target = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, "write_avi", write_three)
        with pytest.raises(KeyboardInterrupt):
            write(target, num_videos=30)
    assert not (target / "FileList.csv").exists()
    times = {path: path.stat().st_mtime_ns for path in written}
    write(target, num_videos=30)
    assert contents(target) == contents(folder)
    assert {path: path.stat().st_mtime_ns for path in written} == times


def test_a_deleted_video_is_made_again(copy, folder):
    next((copy / "Videos").iterdir()).unlink()
    write(copy, num_videos=30)
    assert contents(copy) == contents(folder)


def test_a_data_set_with_other_settings_is_refused_and_replaced_on_request(tmp_path):
    target = write(tmp_path / "data", num_videos=3)
    before = contents(target)
    with pytest.raises(FileExistsError, match="other settings.*overwrite"):
        write(target, num_videos=3, seed=9)
    assert contents(target) == before
    write(target, num_videos=3, seed=9, overwrite=True)
    assert contents(target) == contents(write(tmp_path / "fresh", num_videos=3, seed=9))


def test_the_profile_and_the_coupling_of_size_make_another_data_set(tmp_path):
    reference = write(tmp_path / "reference", num_videos=3)
    settings = (reference / "simulation_settings.json").read_text()
    assert "profile" not in settings  # folders from before there were profiles stay what they are
    wide = write(tmp_path / "wide", num_videos=3, profile="wide", couple_size=0.5)
    assert '"profile": "wide"' in (wide / "simulation_settings.json").read_text()
    first, second = (pd.read_csv(folder / "FileList.csv") for folder in (reference, wide))
    assert np.allclose(first["EF"], second["EF"])
    assert not np.allclose(first["EDV"], second["EDV"])
    with pytest.raises(FileExistsError, match="other settings"):
        write(tmp_path / "wide", num_videos=3, profile="held_out_vendor")


def test_a_folder_of_someone_else_is_never_touched(tmp_path):
    (tmp_path / "FileList.csv").write_text("real data")
    with pytest.raises(FileExistsError, match="was not written by this simulator"):
        write(tmp_path, overwrite=True)
    assert contents(tmp_path) == {"FileList.csv": b"real data"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        write(tmp_path / "data")


def test_label_noise_moves_the_label_and_not_the_tracings(folder, tmp_path):
    noisy = write(tmp_path / "noisy", num_videos=30, label_noise=4.0)
    assert (noisy / "VolumeTracings.csv").read_bytes() == (folder / "VolumeTracings.csv").read_bytes()
    exact, read = pd.read_csv(folder / "FileList.csv"), pd.read_csv(noisy / "FileList.csv")
    assert 2.5 < (read["EF"] - exact["EF"]).std() < 6
    assert np.allclose(read["EF"], ejection_fraction(read["EDV"], read["ESV"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_videos": 0}, "num_videos must be at least 1"),
        ({"image_size": 63}, "image_size must be an even number"),
        ({"label_noise": -1.0}, "label_noise must be within"),
        ({"frames_range": (10, 40)}, "frames_range must be"),
        ({"profile": "narrow"}, "unknown simulation profile 'narrow'"),
        ({"num_workers": -1}, "num_workers must not be negative"),
    ],
)
def test_a_setting_out_of_range_is_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "data", **settings)


def test_a_video_survives_the_round_trip_through_avi(tmp_path):
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    frames = np.stack([np.tile(np.roll(ramp, shift), (40, 1)) for shift in range(5)])
    write_avi(tmp_path / "ramp.avi", frames, 43.5)
    decoded, fps = decode(tmp_path / "ramp.avi")
    assert decoded.shape == frames.shape
    assert fps == pytest.approx(43.5)
    assert np.abs(decoded.astype(int) - frames).mean() < 3


def test_frames_that_are_not_grayscale_bytes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x\.avi: frames must be a uint8 array"):
        write_avi(tmp_path / "x.avi", np.zeros((2, 8, 8)), 50.0)
