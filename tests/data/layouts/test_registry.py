from __future__ import annotations

import numpy as np
import pytest

from echomen_hf import load_echonet_dynamic, load_videos
from echomen_hf.data import LayoutError, read_data_set
from echomen_hf.data.layouts.registry import LAYOUTS, find_layout
from echomen_hf.data.loading import EchoVideosBuilder
from helpers.data_sets import known_frames, write_camus, write_mimic, write_nifti, write_pediatric, write_table


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of every layout but EchoNet-Dynamic's."""
    base = tmp_path_factory.mktemp("layouts")
    write_nifti(base / "table" / "a.nii", known_frames())
    write_table(base / "table" / "list.csv", [{"path": "a.nii", "EF": 50}])
    return {
        "echonet_pediatric": write_pediatric(base / "pediatric"),
        "camus": write_camus(base / "camus"),
        "mimic_lvvol": write_mimic(base / "mimic"),
        "table": base / "table",
    }


def test_every_layout_is_recognised(folders, echonet_dir):
    found = {**folders, "echonet_dynamic": echonet_dir}
    assert found.keys() == LAYOUTS.keys()
    assert {name: find_layout(folder).name for name, folder in found.items()} == {name: name for name in found}


def test_columns_are_those_of_echonet_dynamic(folders, echonet, tmp_path):
    own = load_echonet_dynamic(echonet.root, "test", cache_dir=tmp_path / "cache").features
    for name, folder in folders.items():
        data = load_videos(folder, cache_dir=tmp_path / "cache")
        features = next(iter(data.values())).features
        assert {column: features[column] for column in own} == own, name
        assert {features[column].dtype for column in features.keys() - own.keys()} <= {"string"}


def test_echonet_dynamic_is_one_of_them(echonet, tmp_path):
    one = load_echonet_dynamic(echonet.root, cache_dir=tmp_path / "cache")
    other = load_videos(echonet.root, cache_dir=tmp_path / "cache")
    assert one["train"].cache_files == other["train"].cache_files
    assert one["train"]._fingerprint == other["train"]._fingerprint


def test_two_layouts_in_one_folder(echonet):
    write_camus(echonet.root)
    with pytest.raises(
        LayoutError, match=r"two layouts: echonet_dynamic \(FileList.csv .*\) and camus \(database_nif"
    ):
        load_videos(echonet.root)
    assert find_layout(echonet.root, "camus").name == "camus"


def test_no_layout_tells_what_was_looked_for(tmp_path):
    with pytest.raises(LayoutError) as error:
        load_videos(tmp_path)
    assert all(f"  {name}: {layout.looks_for}" in str(error.value) for name, layout in LAYOUTS.items())


@pytest.mark.parametrize(
    ("layout", "options", "error", "message"),
    [
        ("echonet", {}, ValueError, "Unknown layout 'echonet'; choose from echonet_dynamic, echonet_pediatric, camus"),
        ("camus", {}, LayoutError, "nowhere does not exist"),
        (None, {}, LayoutError, r"(?s)nowhere does not exist.*echomen simulate"),
    ],
)
def test_folders_that_do_not_exist(tmp_path, layout, options, error, message):
    with pytest.raises(error, match=message):
        load_videos(tmp_path / "nowhere", layout, **options)


def test_options_of_other_layouts(folders):
    with pytest.raises(ValueError, match="layout camus of .* has no option fold; it has view, split_by, split_file"):
        read_data_set(folders["camus"], fold=3)
    assert read_data_set(folders["camus"], fold=None, columns=None).layout.name == "camus"


@pytest.mark.parametrize("name", ["echonet_pediatric", "camus", "mimic_lvvol", "table"])
def test_streaming_gives_the_same_rows(folders, name, tmp_path):
    cached = load_videos(folders[name], split="all", cache_dir=tmp_path / "cache", split_by="none")
    streamed = load_videos(folders[name], split="all", streaming=True, split_by="none")
    assert list(streamed) == list(cached)


class TestCache:
    def test_second_load_does_not_rebuild(self, folders, tmp_path, monkeypatch):
        first = load_videos(folders["camus"], cache_dir=tmp_path / "cache")
        monkeypatch.setattr(EchoVideosBuilder, "_generate_examples", lambda *args, **kwargs: pytest.fail("rebuilt"))
        assert load_videos(folders["camus"], cache_dir=tmp_path / "cache")["train"][:] == first["train"][:]

    @pytest.mark.parametrize("change", ["cfg", "video", "view", "split"])
    def test_changes_are_noticed(self, tmp_path, change):
        root = write_camus(tmp_path)
        before, options = read_data_set(root), {}
        fingerprint = before.fingerprint
        folder = root / "database_nifti" / "patient0001"
        if change == "cfg":
            path = folder / "Info_4CH.cfg"
            path.write_text(path.read_text().replace("EF: 40", "EF: 41"))
        elif change == "video":
            write_nifti(folder / "patient0001_4CH_half_sequence.nii.gz", known_frames(7, 40, 16))
        elif change == "view":
            options = {"view": "2CH"}
        else:
            options = {"split_by": "none"}
        after = read_data_set(root, **options)
        assert after.fingerprint != fingerprint
        assert (after.checksum != before.checksum) == (change != "video")

    def test_the_checksum_does_not_depend_on_the_place(self, tmp_path):
        assert (
            read_data_set(write_camus(tmp_path / "a")).checksum == read_data_set(write_camus(tmp_path / "b")).checksum
        )


class TestSplits:
    @pytest.fixture
    def table(self, tmp_path):
        rows = []
        for number in range(40):
            write_nifti(tmp_path / "data" / f"{number}.nii", known_frames(2, 8, 8))
            rows.append({"path": f"{number}.nii", "EF": 40 + number / 10, "patient": f"p{number // 2}"})
        return write_table(tmp_path / "data" / "list.csv", rows)

    def splits(self, table, **options):
        return {row["file_name"]: row["split"] for row in read_data_set(table, **options).rows}

    def test_by_patient_in_shares(self, table, heard):
        data = read_data_set(table)
        patients = {(row["patient"], row["split"]) for row in data.rows}
        assert len(patients) == 20
        assert sorted(split for _, split in patients) == ["test"] * 3 + ["train"] * 14 + ["validation"] * 3
        assert f"as {table.parent / 'echomen_splits.csv'} says" in heard[-1]
        assert "each video counting as one" not in heard[-1]

    def test_the_file_is_read_again(self, table):
        before = self.splits(table)
        path = table.parent / "echomen_splits.csv"
        assert self.splits(table) == before
        path.write_text("\n".join(f"{line.split(',')[0]},test" for line in path.read_text().splitlines()[1:]))
        path.write_text("patient,split\n" + path.read_text())
        assert set(self.splits(table).values()) == {"test"}

    def test_a_folder_and_its_table_are_divided_alike(self, table):
        assert self.splits(table.parent) == self.splits(table)
        assert self.splits(table.parent) == self.splits(table)

    def test_new_patients_are_added_and_the_others_stay(self, table):
        lines = table.read_text().splitlines()
        table.write_text("\n".join(lines[:21]))
        before = self.splits(table)
        table.write_text("\n".join(lines))
        after = self.splits(table)
        assert {name: after[name] for name in before} == before
        assert set(after.values()) == {"train", "validation", "test"}

    def test_the_order_of_the_rows_does_not_matter(self, table):
        before = self.splits(table, split_file=table.parent / "one.txt")
        lines = table.read_text().splitlines()
        table.write_text("\n".join([lines[0], *lines[:0:-1]]))
        assert self.splits(table, split_file=table.parent / "two.txt") == before

    def test_a_folder_that_cannot_be_written_to(self, table, monkeypatch, tmp_path, heard):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
        monkeypatch.setattr("os.access", lambda *args: False)
        before = self.splits(table)
        (path,) = (tmp_path / "hf").rglob("echomen_splits.csv")
        assert str(path) in heard[-1]
        assert self.splits(table) == before
        assert not list(table.parent.glob("*splits*"))

    def test_a_file_that_is_no_division(self, table):
        (table.parent / "other.csv").write_text("patient,split\np1,dev\n")
        with pytest.raises(LayoutError, match="other.csv is no division of patients"):
            read_data_set(table, split_file=table.parent / "other.csv")

    def test_unknown_choice(self, table):
        with pytest.raises(ValueError, match="split_by must be one of patient, none, got 'study'"):
            read_data_set(table, split_by="study")

    def test_a_patient_in_two_splits_is_refused_without_the_name(self, table):
        rows = [
            {"path": f"{n}.nii", "EF": 50 + n, "patient": "Jane Doe", "split": s}
            for n, s in enumerate(["train", "test"])
        ]
        write_table(table, rows)
        with pytest.raises(LayoutError, match=r"1 of 1 patients have videos in more.*[0-9a-f]{16} ") as error:
            read_data_set(table)
        assert "Jane" not in str(error.value)
        assert len(set(self.splits(table, split_by="patient").values())) == 1

    def test_videos_without_a_patient_count_as_one_each(self, table, heard):
        rows = [{"path": f"{n}.nii", "EF": 50 + n} for n in range(40)]
        write_table(table, rows)
        assert sorted(np.unique(list(self.splits(table).values()), return_counts=True)[1]) == [6, 6, 28]
        assert "each video counting as one, since none is named" in heard[-1]
