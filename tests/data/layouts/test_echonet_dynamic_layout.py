from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echomen_hf.data.layouts import tables
from echomen_hf.data.layouts.echonet_dynamic import read_file_list, read_volume_tracings
from echomen_hf.data.layouts.tables import LayoutError


# A long axis down the middle, then chords across it: a rectangle 4 high, as wide as the chords.
def rectangle(width: float) -> list[tuple[float, float, float, float]]:
    axis = (10.0, 0.0, 10.0, 6.0)
    return [axis, *((10 - width / 2, y, 10 + width / 2, y) for y in (1.0, 3.0, 5.0))]


class TestFileList:
    def test_rows_in_file_order_with_their_units(self, echonet: Any) -> None:
        rows = read_file_list(echonet.root)
        assert [(row["file_name"], row["split"]) for row in rows] == [
            ("0XA", "train"),
            ("0XB", "validation"),
            ("0XC", "test"),
        ]
        assert rows[1] == {
            "video": str(echonet.root / "Videos" / "0XB.avi"),
            "file_name": "0XB",
            "split": "validation",
            "ejection_fraction": 35.25,
            "end_systolic_volume": 40.25,
            "end_diastolic_volume": 90.5,
            "frame_height": 32,
            "frame_width": 48,
            "num_frames": 6,
            "fps": 50.0,
        }

    def test_paths_are_absolute_from_a_relative_folder(self, echonet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(echonet.root.parent)
        assert read_file_list("EchoNet-Dynamic")[0]["video"] == str(echonet.root / "Videos" / "0XA.avi")

    def test_names_with_suffix_and_splits_in_any_case(self, echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA.avi", "train"), row("0XB.AVI", "Val"), row("0XC", "VALIDATION")])
        assert [(r["file_name"], r["split"]) for r in read_file_list(echonet.root)] == [
            ("0XA", "train"),
            ("0XB", "validation"),
            ("0XC", "validation"),
        ]

    def test_byte_order_mark_blanks_and_blank_lines(self, echonet: Any) -> None:
        text = "FileName , EF,split \n 0XA , 55.5 , TRAIN  \n\n   \n0XB,40,VAL,,\n , , \n"
        (echonet.root / "FileList.csv").write_text(text, encoding="utf-8-sig")
        assert [(r["file_name"], r["ejection_fraction"]) for r in read_file_list(echonet.root)] == [
            ("0XA", 55.5),
            ("0XB", 40.0),
        ]

    def test_absent_optional_columns_and_values_are_none(self, echonet: Any) -> None:
        (echonet.root / "FileList.csv").write_text("FileName,EF,Split,FPS,ESV\n0XA,50,TRAIN,,nan\n")
        row = read_file_list(echonet.root)[0]
        optional = ["end_systolic_volume", "end_diastolic_volume", "frame_height", "frame_width", "num_frames", "fps"]
        assert [row[name] for name in optional] == [None] * 6

    def test_further_columns_keep_their_names_and_stay_text(self, echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN", Sex="F", Age=61), row("0XB", "VAL", Sex="", Age="")])
        rows = read_file_list(echonet.root)
        assert (rows[0]["Sex"], rows[0]["Age"]) == ("F", "61")
        assert rows[1]["Sex"] == ""

    def test_windows_line_ends_and_quoted_values(self, echonet: Any) -> None:
        (echonet.root / "FileList.csv").write_bytes(b'FileName,EF,Split,Note\r\n0XA,50,TRAIN,"a, b"\r\n')
        assert read_file_list(echonet.root)[0]["Note"] == "a, b"

    def test_line_breaks_in_quotes_and_unusual_separators_survive(self, echonet: Any) -> None:
        text = (
            'FileName,EF,Split,Note\r\n0XA,50,TRAIN,"a\nb\r\nc\rd"\r\n'
            "0XB,40,VAL,e\u2028f\x85g\x0bh\x1ci\r\n0XC,x,TEST,j\r\n"
        )
        (echonet.root / "FileList.csv").write_bytes(text.encode())
        # The bad row comes last and keeps its number as an editor shows it.
        with pytest.raises(LayoutError, match=r"line 7: EF must be a number"):
            read_file_list(echonet.root)
        (echonet.root / "FileList.csv").write_bytes(text.replace("0XC,x", "0XC,60").encode())
        rows = read_file_list(echonet.root)
        assert [row["Note"] for row in rows] == ["a\nb\r\nc\rd", "e\u2028f\x85g\x0bh\x1ci", "j"]
        assert [row["ejection_fraction"] for row in rows] == [50.0, 40.0, 60.0]

    def test_line_ends_of_old_macs(self, echonet: Any) -> None:
        (echonet.root / "FileList.csv").write_bytes(b"FileName,EF,Split\r0XA,50,TRAIN\r0XB,40,VAL\r")
        assert [row["ejection_fraction"] for row in read_file_list(echonet.root)] == [50.0, 40.0]

    def test_a_dot_in_a_name_is_not_a_suffix(self, echonet: Any, row: Any) -> None:
        echonet.add_video("1.2.840.7")
        echonet.write_list([row("1.2.840.7", "TRAIN")])
        assert read_file_list(echonet.root)[0]["file_name"] == "1.2.840.7"

    def test_avi_is_preferred_and_other_containers_are_found(self, echonet: Any, row: Any) -> None:
        videos = echonet.root / "Videos"
        (videos / "0XA.mp4").write_bytes(b"other")
        (videos / "0XD.mp4").write_bytes(b"other")
        echonet.write_list([row("0XA", "TRAIN"), row("0XD", "TRAIN")])
        assert [Path(r["video"]).name for r in read_file_list(echonet.root)] == ["0XA.avi", "0XD.mp4"]


class TestRefusedFileLists:
    def test_missing_folder_explains_where_the_data_come_from(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError) as error:
            read_file_list(tmp_path / "nowhere")
        message = str(error.value)
        assert str(tmp_path / "nowhere") in message
        assert "https://echonet.github.io/dynamic/" in message
        assert "research use" in message
        assert "`echomen simulate`" in message

    def test_missing_file_list(self, echonet: Any) -> None:
        (echonet.root / "FileList.csv").unlink()
        with pytest.raises(LayoutError, match=r"FileList\.csv does not exist"):
            read_file_list(echonet.root)

    def test_missing_videos_folder(self, echonet: Any) -> None:
        (echonet.root / "Videos").rename(echonet.root / "videos_elsewhere")
        with pytest.raises(LayoutError, match=r"Videos does not exist"):
            read_file_list(echonet.root)

    def test_missing_videos_are_counted_and_five_are_named(self, echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN"), *(row(f"gone{i}", "TRAIN") for i in range(7))])
        with pytest.raises(
            LayoutError, match=r"7 of 8 videos are missing.*gone0, gone1, gone2, gone3, gone4, \.\.\.;"
        ):
            read_file_list(echonet.root)

    def test_names_cannot_leave_the_folder(self, echonet: Any, row: Any) -> None:
        (echonet.root / "outside.avi").write_bytes(b"x")
        echonet.write_list([row("../outside", "TRAIN")])
        with pytest.raises(LayoutError, match="1 of 1 videos are missing"):
            read_file_list(echonet.root)

    @pytest.mark.parametrize("second", ["0XA", "0XA.avi"])
    def test_duplicates(self, echonet: Any, row: Any, second: str) -> None:
        echonet.write_list([row("0XA", "TRAIN"), row("0XB", "VAL"), row(second, "TEST")])
        with pytest.raises(LayoutError, match=r"line 4: FileName '0XA' already stands on line 2"):
            read_file_list(echonet.root)

    @pytest.mark.parametrize("value", ["", "n/a", "nan", "inf", "55,5"])
    def test_ejection_fraction_is_not_a_number(self, echonet: Any, row: Any, value: str) -> None:
        echonet.write_list([row("0XA", "TRAIN"), row("0XB", "VAL", value)])
        with pytest.raises(LayoutError, match=rf"FileList\.csv, line 3: EF must be a number, got '{value}'"):
            read_file_list(echonet.root)

    @pytest.mark.parametrize("value", [-0.1, 100.1, 5550])
    def test_ejection_fraction_out_of_range(self, echonet: Any, row: Any, value: float) -> None:
        echonet.write_list([row("0XA", "TRAIN", value)])
        with pytest.raises(LayoutError, match=r"line 2: EF must be a percentage from 0 to 100, got"):
            read_file_list(echonet.root)

    @pytest.mark.parametrize("value", [0, 100])
    def test_ends_of_the_range_are_allowed(self, echonet: Any, row: Any, value: float) -> None:
        echonet.write_list([row("0XA", "TRAIN", value)])
        assert read_file_list(echonet.root)[0]["ejection_fraction"] == value

    @pytest.mark.parametrize("value", ["", "TRIAN", "all"])
    def test_unknown_split(self, echonet: Any, row: Any, value: str) -> None:
        echonet.write_list([row("0XA", value)])
        with pytest.raises(LayoutError, match=rf"line 2: Split must be TRAIN, VAL or TEST, got '{value}'"):
            read_file_list(echonet.root)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("FPS", "fast", r"line 2: FPS must be a number, got 'fast'"),
            ("NumberOfFrames", "0", r"line 2: NumberOfFrames must be positive"),
            ("NumberOfFrames", "3.4", r"line 2: NumberOfFrames must be a whole number, got '3.4'"),
            ("FileName", "", r"line 2: FileName is empty"),
        ],
    )
    def test_other_wrong_values(self, echonet: Any, row: Any, field: str, value: str, message: str) -> None:
        echonet.write_list([row("0XA", "TRAIN", **{field: value})])
        with pytest.raises(LayoutError, match=message):
            read_file_list(echonet.root)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", r"no column FileName, EF, Split; found nothing"),
            ("FileName,EF,Split\n", "has no rows"),
            ("FileName,Split\n0XA,TRAIN\n", r"no column EF; found FileName, Split"),
            ("FileName;EF;Split\n0XA;5;TRAIN\n", "separated by commas"),
            ("FileName,EF,Split\n0XA,50\n", r"line 2: 2 values for 3 columns"),
            ('FileName,EF,Split,Note\n0XA,50,TRAIN,"a\n0XB,40,VAL,b\n', r"line 3: .*close every quotation mark"),
            ("FileName,EF,Split\n0XA,50,TRAIN,left over\n", r"line 2: 4 values for 3 columns"),
            ("FileName,EF,ef,Split\n0XA,50,50,TRAIN\n", r"column 'ef' appears twice"),
            ("FileName,EF,Split,video\n0XA,50,TRAIN,x\n", r"'video' is reserved"),
        ],
    )
    def test_wrong_tables(self, echonet: Any, text: str, message: str) -> None:
        (echonet.root / "FileList.csv").write_text(text)
        with pytest.raises(LayoutError, match=message):
            read_file_list(echonet.root)

    def test_wrong_encoding(self, echonet: Any) -> None:
        (echonet.root / "FileList.csv").write_bytes("FileName,EF,Split\n0XÄ,50,TRAIN\n".encode("latin-1"))
        with pytest.raises(LayoutError, match="not UTF-8"):
            read_file_list(echonet.root)


class TestUnits:
    """A column in another unit is named before training, with the file and the remedy."""

    def test_fractions(self, echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN", 0.55), row("0XB", "VAL", 0.35), row("0XC", "TEST", 1.05)])
        message = (
            r"FileList\.csv: every EF lies between 0.35 and 1.05, so the column holds fractions; multiply it by 100"
        )
        with pytest.raises(LayoutError, match=message):
            read_file_list(echonet.root)

    def test_a_single_low_value_is_a_percentage(self, echonet: Any, row: Any) -> None:
        echonet.write_list([row("0XA", "TRAIN", 0.9), row("0XB", "VAL", 6.9)])
        assert [r["ejection_fraction"] for r in read_file_list(echonet.root)] == [0.9, 6.9]

    @pytest.mark.parametrize("value", [0, 1, 55.5])
    def test_equal_values_are_warned_of(self, echonet: Any, row: Any, value: float, monkeypatch: Any) -> None:
        heard: list[str] = []
        monkeypatch.setattr(tables.logger, "warning_once", heard.append)
        echonet.write_list([row("0XA", "TRAIN", value), row("0XB", "TRAIN", value), row("0XC", "TEST", value)])
        assert [r["ejection_fraction"] for r in read_file_list(echonet.root)] == [value] * 3
        (message,) = heard
        assert str(echonet.root / "FileList.csv") in message
        assert f"the EF of all 2 videos of the train split is {value:g}" in message
        assert "check the EF column" in message

    @pytest.mark.parametrize("values", [(0.02, 0.018), (50000, 47000)])
    def test_frame_rates(self, echonet: Any, row: Any, values: tuple[float, float]) -> None:
        echonet.write_list([row("0XA", "TRAIN", 55.5, FPS=values[0]), row("0XB", "VAL", 40.5, FPS=values[1])])
        with pytest.raises(LayoutError, match=r"FileList\.csv: every FPS lies between .* no frames per second; "):
            read_file_list(echonet.root)

    @pytest.mark.parametrize(("column", "values"), [("ESV", (0.04, 0.05)), ("EDV", (90500, 120000))])
    def test_volumes(self, echonet: Any, row: Any, column: str, values: tuple, monkeypatch: Any) -> None:
        heard: list[str] = []
        monkeypatch.setattr(tables.logger, "warning_once", heard.append)
        changes = [{column: value} for value in values]
        echonet.write_list([row("0XA", "TRAIN", 61.5, **changes[0]), row("0XB", "VAL", 35.25, **changes[1])])
        assert len(read_file_list(echonet.root)) == 2
        (message,) = heard
        assert f"every {column} lies between {values[0]:g} and {values[1]:g}" in message

    def test_right_units_are_silent(self, echonet: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(tables.logger, "warning_once", pytest.fail)
        assert len(read_file_list(echonet.root)) == 3


class TestTracings:
    def test_larger_area_is_end_diastole_whatever_the_order(self, echonet: Any) -> None:
        echonet.write_tracings(
            {"0XA": {30: rectangle(4), 46: rectangle(10)}, "0XB": {12: rectangle(9), 40: rectangle(5)}}
        )
        tracings = read_volume_tracings(echonet.root)
        assert (tracings["0XA"].end_diastolic_frame, tracings["0XA"].end_systolic_frame) == (46, 30)
        assert (tracings["0XB"].end_diastolic_frame, tracings["0XB"].end_systolic_frame) == (12, 40)
        np.testing.assert_array_equal(tracings["0XA"].end_diastolic_chords, rectangle(10))
        np.testing.assert_array_equal(tracings["0XA"].end_systolic_chords, rectangle(4))

    def test_long_axis_does_not_count_as_area(self, echonet: Any) -> None:
        # An axis that juts out far must not outweigh wider chords.
        slanted = [(0.0, 0.0, 100.0, 6.0), *rectangle(4)[1:]]
        echonet.write_tracings({"0XA": {1: slanted, 2: rectangle(6)}})
        assert read_volume_tracings(echonet.root)["0XA"].end_diastolic_frame == 2

    def test_videos_with_one_traced_frame_are_left_out(self, echonet: Any) -> None:
        echonet.write_tracings({"0XA": {1: rectangle(4)}, "0XB": {1: rectangle(4), 2: rectangle(5), 3: rectangle(6)}})
        tracings = read_volume_tracings(echonet.root)
        assert list(tracings) == ["0XB"]
        assert (tracings["0XB"].end_diastolic_frame, tracings["0XB"].end_systolic_frame) == (3, 1)

    def test_required_tracings_drop_untraced_rows(self, echonet: Any) -> None:
        echonet.write_tracings({"0XA": {1: rectangle(4), 2: rectangle(5)}, "0XC": {1: rectangle(4)}})
        assert [r["file_name"] for r in read_file_list(echonet.root, require_tracings=True)] == ["0XA"]
        assert len(read_file_list(echonet.root)) == 3

    def test_missing_file_matters_only_when_required(self, echonet: Any) -> None:
        assert len(read_file_list(echonet.root)) == 3
        with pytest.raises(LayoutError, match=r"VolumeTracings\.csv does not exist"):
            read_file_list(echonet.root, require_tracings=True)

    def test_no_traced_video_left(self, echonet: Any) -> None:
        echonet.write_tracings({"0XZ": {1: rectangle(4), 2: rectangle(5)}})
        with pytest.raises(LayoutError, match="compare the FileName columns"):
            read_file_list(echonet.root, require_tracings=True)

    def test_wrong_number_names_line_and_field(self, echonet: Any) -> None:
        (echonet.root / "VolumeTracings.csv").write_text("FileName,X1,Y1,X2,Y2,Frame\n0XA.avi,1,2,x,4,5\n")
        with pytest.raises(LayoutError, match=r"VolumeTracings\.csv, line 2: X2 must be a number, got 'x'"):
            read_volume_tracings(echonet.root)
