import numpy as np
import pandas as pd
import pytest

from echomen_hf.inference import combine_videos, find_groups, list_files, read_manifest, video_variances, write_groups
from echomen_hf.inference.archive import COLUMNS


def test_mean_with_weights_of_one_over_variance():
    combined = combine_videos("P", [40, 60], [1, 3])
    assert combined.ejection_fraction == pytest.approx((40 / 1 + 60 / 3) / (1 + 1 / 3))
    assert (combined.video_sd, combined.lowest, combined.highest, combined.num_videos) == (10, 40, 60, 2)
    assert combined.category == "hfmref"


def test_it_has_the_least_error_of_all_weights():
    generator = np.random.default_rng(0)
    sds = np.array([2.0, 4.0, 8.0])
    errors = generator.normal(0, sds, (4000, 3))
    combined = [combine_videos("P", 50 + row, sds**2).ejection_fraction - 50 for row in errors]
    assert np.var(combined) == pytest.approx(1 / (1 / sds**2).sum(), rel=0.05)
    assert np.var(combined) < 0.9 * np.var(errors.mean(axis=1))
    assert np.var(combined) < np.var(errors[:, 0])


def test_videos_without_variances_count_alike():
    assert combine_videos("P", [40, 60, 80]).ejection_fraction == pytest.approx(60)


def test_median_is_not_moved_by_an_odd_video():
    assert combine_videos("P", [51, 52, 5], combine="median").ejection_fraction == 51


@pytest.mark.parametrize("combine", ["variance", "median"])
def test_single_video_is_its_group(combine):
    combined = combine_videos("P", [43.2], [7.0], combine)
    assert (combined.ejection_fraction, combined.video_sd, combined.num_videos) == (43.2, 0, 1)


@pytest.mark.parametrize(("values", "combine", "message"), [([], "median", "no video"), ([50], "mode", "not 'mode'")])
def test_mistakes(values, combine, message):
    with pytest.raises(ValueError, match=message):
        combine_videos("P", values, combine=combine)


def test_variance_is_that_of_clips_and_of_the_interval():
    assert video_variances([3, 0], [(40, 60), (50, 52)]) == pytest.approx([3**2 + 10**2, 1])
    # A video without an interval cannot be weighed against one with.
    assert video_variances([3, 0], [(40, 60), None]) == pytest.approx([10, 1])
    assert video_variances([3, 0]) == pytest.approx([10, 1])
    assert video_variances([0], [(50, 50)]) == pytest.approx([1])


@pytest.fixture
def studies(tmp_path):
    for name in ("s1/a.avi", "s1/b.avi", "s2/c.avi"):
        (tmp_path / "Doe_John" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Doe_John" / name).write_text("video")
    return tmp_path / "Doe_John"


class TestGroups:
    def test_by_folder(self, studies):
        assert find_groups(list_files([studies]), "folder") == {"s1/a.avi": "s1", "s1/b.avi": "s1", "s2/c.avi": "s2"}
        assert find_groups(list_files([studies / "s1"]), "folder") == {"a.avi": ".", "b.avi": "."}

    def test_by_folders_whose_names_are_not_told(self, studies):
        given = [studies / "s1", studies / "s2"]
        with pytest.raises(ValueError, match="Several folders would be called") as caught:
            find_groups(list_files(given), "folder")
        assert "Doe_John" not in str(caught.value)
        groups = find_groups(list_files(given, absolute_paths=True), "folder")
        assert set(groups.values()) == {str(path) for path in given}

    def test_by_column(self, studies):
        (studies / "m.csv").write_text("path,patient,folder\ns1/a.avi,7,x\ns2/c.avi,8,x\n")
        files = read_manifest(studies / "m.csv")
        assert find_groups(files, "patient") == {"s1/a.avi": "7", "s2/c.avi": "8"}
        assert set(find_groups(files, "folder").values()) == {"x"}

    @pytest.mark.parametrize(
        ("text", "group_by", "message"),
        [
            ("path,patient\ns1/a.avi,7\ns2/c.avi, \n", "patient", "1 files .* no patient, such as s2/c.avi"),
            ("path,patient\ns1/a.avi,7\n", "study", "by 'study'; there is patient, folder"),
            ("path,videos\ns1/a.avi,7\n", "videos", "column 'videos' of its own"),
        ],
    )
    def test_mistakes(self, studies, text, group_by, message):
        (studies / "m.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            find_groups(read_manifest(studies / "m.csv"), group_by)


def rows():
    common = dict.fromkeys(COLUMNS, "") | {"clip_sd": "0.00", "model": "m", "weights": "abc"}
    return [
        common | {"file": "a", "EF_pred": "40.00", "interval_low": "30.00", "interval_high": "50.00"},
        common | {"file": "b", "EF_pred": "60.00", "interval_low": "55.00", "interval_high": "65.00"},
        common | {"file": "c", "error": "c: is no video"},
    ]


def test_table_has_a_row_for_every_group_in_their_order(tmp_path):
    groups = {"a": "P1", "b": "P1", "c": "P0"}
    (prediction,) = write_groups(rows(), groups, "the patient", tmp_path / "o.csv")
    assert prediction.ejection_fraction == pytest.approx((40 / 100 + 60 / 25) / (1 / 100 + 1 / 25))
    table = pd.read_csv(tmp_path / "o_by_the_patient.csv", dtype=str, keep_default_na=False)
    assert table["the patient"].tolist() == ["P1", "P0"]
    assert table["EF_pred"].tolist() == ["56.00", ""]
    assert table["category"].tolist() == ["HFpEF", ""]
    assert (table["videos"].tolist(), table["failed"].tolist()) == (["2", "0"], ["0", "1"])
    assert (table["video_sd"][0], table["lowest"][0], table["highest"][0]) == ("10.00", "40.00", "60.00")


def test_parquet_stands_beside_parquet(tmp_path):
    write_groups(rows(), {"a": "P1", "b": "P1", "c": "P0"}, "patient", tmp_path / "o.parquet", "median")
    table = pd.read_parquet(tmp_path / "o_by_patient.parquet")
    assert table["EF_pred"][0] == 50 and np.isnan(table["EF_pred"][1])
    assert table["videos"].tolist() == [2, 0]
