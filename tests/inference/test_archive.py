import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pandas as pd
import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENVideoProcessor, Predictor
from echomen_hf.inference import VideoPrediction, archive, find_groups, video_prediction, write_groups
from echomen_hf.inference.archive import COLUMNS, predict_archive
from echomen_hf.inference.archive_files import Place, list_files, read_manifest
from echomen_hf.model.video_prediction_echomen import begin_estimate
from echomen_hf.model.video_source_echomen import VideoReadError
from helpers.tiny_config import make_tiny_config


SLOW_COMMAND = """
import sys, time
from echomen_hf.cli import main
from echomen_hf.inference import predictor
read = predictor.read_video

def slow(source):
    time.sleep(0.05)
    return read(source)

predictor.read_video = slow
main("predict")
"""


class StandIn:
    """A predictor whose estimate depends on the path alone."""

    protocol, engine, outliner, force = "windows", SimpleNamespace(precision="fp32"), None, False

    def __init__(self):
        self.seen = []

    def predict_files(self, paths):
        for path in paths:
            self.seen.append(path)
            name = str(getattr(path, "name", path))
            value = zlib.crc32(name.encode()) % 8000 / 100
            if "broken" in name:
                yield path, VideoReadError.about(str(path), "is no video", "pass a video")
            elif "denied" in name:
                yield path, PermissionError(13, "Permission denied", str(path.absolute()))
            else:
                if "doppler" in name:
                    warnings.warn(f"{path}: in colour", stacklevel=1)
                clips = np.array([value, value + 1])
                yield path, VideoPrediction(name, value, value, clips, clips, clips, (value, value + 2))


@pytest.fixture
def folder(tmp_path):
    """Videos that the stand-in reads, in two folders whose names are not to be told."""
    root = tmp_path / "Doe_John" / "study"
    for name in ("a.avi", "b.avi", "broken.avi", "c/doppler.avi", "c/d.avi", "denied.avi"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("video")
    return root


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = make_tiny_config()
    EchoMENModel(config).save_pretrained(path)
    EchoMENVideoProcessor.for_model(config).save_pretrained(path)
    return path


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(files):
    return [file.name for file in files]


class TestNames:
    def test_of_a_folder_are_paths_inside_it(self, folder):
        assert names(list_files([folder])) == [
            *("a.avi", "b.avi", "broken.avi", "c/d.avi", "c/doppler.avi", "denied.avi")
        ]
        assert names(list_files([folder / "a.avi", folder / "c"])) == ["a.avi", "d.avi", "doppler.avi"]

    def test_each_file_once(self, folder):
        assert names(list_files([folder / "c" / "d.avi", folder / "c"])) == ["d.avi", "doppler.avi"]

    def test_equal_names_get_the_number_of_what_was_given(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "other")
        found = names(list_files([folder, tmp_path / "other" / "c", tmp_path / "other" / "a.avi"]))
        assert found[0] == "input1/a.avi" and found[-1] == "input3/a.avi"
        assert "b.avi" in found and "c/d.avi" in found and "d.avi" in found

    def test_names_that_stay_equal_are_refused(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "other")
        (folder / "input2").mkdir()
        shutil.copy(folder / "a.avi", folder / "input2" / "a.avi")
        with pytest.raises(ValueError, match="would both be called input2/a.avi"):
            list_files([folder, tmp_path / "other"])
        assert len(list_files([folder, tmp_path / "other"], absolute_paths=True)) == 13

    def test_absolute_on_request(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        assert names(list_files(["a.avi"], absolute_paths=True)) == [str(folder / "a.avi")]

    def test_that_are_no_text(self, folder):
        (folder / "c" / os.fsdecode(b"caf\xe9.avi")).write_text("video")
        assert names(list_files([folder / "c"]))[0] == r"caf\udce9.avi"

    @pytest.mark.parametrize("missing", ["none.avi", "empty"])
    def test_mistakes_name_the_last_part_only(self, folder, missing):
        (folder / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match=f"^{missing} (does not exist|holds no video)"):
            list_files([folder / missing])


class TestManifest:
    def test_carries_columns(self, folder, tmp_path):
        manifest = folder / "list.csv"
        manifest.write_text(f"patient,path,age\n007,a.avi,\n008,{folder / 'b.avi'},61\n'=1+1,../none.avi,70\n")
        files = read_manifest(manifest)
        assert names(files) == ["a.avi", "b.avi", "none.avi"]
        assert files[0].source == folder / "a.avi"
        rows = predict_archive(StandIn(), files, tmp_path / "o.csv")
        written = read(tmp_path / "o.csv")
        assert list(written[0]) == [*COLUMNS, "patient", "age"]
        assert [(row["patient"], row["age"]) for row in written] == [("007", ""), ("008", "61"), ("'=1+1", "70")]
        assert rows[2]["patient"] == "=1+1"

    @pytest.mark.parametrize("column", ["path", "file", "file_name"])
    def test_parquet(self, folder, column):
        pd.DataFrame({column: ["a.avi", "c/d.avi"], "age": [1, None]}).to_parquet(folder / "list.parquet")
        files = read_manifest(folder / "list.parquet")
        assert names(files) == ["a.avi", "c/d.avi"]
        assert [file.columns for file in files] == [{"age": "1.0"}, {"age": ""}]

    def test_equal_names_get_the_number_of_the_row(self, folder, tmp_path):
        (tmp_path / "list.csv").write_text(f"file\n{folder}/1/IM1\n{folder}/2/IM1\n3/IM1\n")
        assert names(read_manifest(tmp_path / "list.csv")) == ["row1/IM1", "row2/IM1", "3/IM1"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\n1,2\n", "list.csv has no column path, file, file_name, only a, b"),
            ("file,b\n,2\n", "Row 1 of the manifest list.csv has an empty file"),
            ("file\n", "list.csv has no rows"),
            ("", "list.csv is no CSV or Parquet file"),
        ],
    )
    def test_mistakes(self, tmp_path, text, message):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_manifest(tmp_path / "list.csv")

    def test_that_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="^The manifest none.csv does not exist"):
            read_manifest(tmp_path / "none.csv")

    def test_columns_of_the_output_are_refused(self, folder, tmp_path):
        (folder / "list.csv").write_text("path,warning\na.avi,x\n")
        with pytest.raises(ValueError, match="columns that the output has too: warning"):
            predict_archive(StandIn(), read_manifest(folder / "list.csv"), tmp_path / "o.csv")


def test_no_row_holds_a_folder_above_what_was_given(folder, tmp_path):
    rows = predict_archive(StandIn(), list_files([folder]), tmp_path / "o.csv", model=folder.parent)
    by_name = {row["file"]: row for row in rows}
    assert by_name["broken.avi"]["error"] == "broken.avi: is no video; pass a video."
    assert by_name["denied.avi"]["error"] == "[Errno 13] Permission denied: 'denied.avi'"
    assert by_name["c/doppler.avi"]["warning"] == "c/doppler.avi: in colour"
    assert rows[0]["model"] == "Doe_John"  # what was given itself
    text = (tmp_path / "o.csv").read_text()
    assert str(tmp_path) not in text and "study" not in text


class TestOutputThatExists:
    """It is replaced if it is an earlier table, and nothing else is."""

    @pytest.fixture
    def no_reading(self):
        predictor = StandIn()
        yield predictor
        assert predictor.seen == []

    @pytest.mark.parametrize("resume", [False, True])
    def test_recording_manifest_and_labels_stay(self, folder, no_reading, resume):
        (folder / "man.csv").write_text("path,age\na.avi,61\n")
        (folder / "FileList.csv").write_bytes(b"FileName,EF,Split\n0X1,55,TRAIN\n")
        (folder / "a.avi").write_bytes(b"RIFF\xff\xfe\x00")
        files = {"man.csv": read_manifest(folder / "man.csv")}
        for name in ("a.avi", "man.csv", "FileList.csv"):
            data = (folder / name).read_bytes()
            with pytest.raises(ValueError, match=f"^{name} exists and is no earlier table .* another `--output`"):
                predict_archive(no_reading, files.get(name, list_files([folder])), folder / name, resume=resume)
            assert (folder / name).read_bytes() == data

    def test_tables_of_other_columns_in_parquet(self, folder, no_reading):
        path = folder / "labels.parquet"
        for data in (b"no Parquet", pd.DataFrame({"file": ["a.avi"], "EF_pred": [55]}).to_parquet()):
            path.write_bytes(data)
            with pytest.raises(ValueError, match="labels.parquet exists and is no earlier table"):
                predict_archive(no_reading, list_files([folder]), path)
            assert path.read_bytes() == data

    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    def test_earlier_table_is_replaced(self, folder, tmp_path, ending):
        path = tmp_path / f"o.{ending}"
        old = [name for name in COLUMNS if name not in ("quality", "reasons", "weights")] + ["ward"]
        table = pd.DataFrame([["x"] * len(old)], columns=old)
        path.write_bytes(table.to_csv(index=False).encode() if ending == "csv" else table.to_parquet())
        assert len(predict_archive(StandIn(), list_files([folder]), path)) == 6
        assert len(pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)) == 6


def test_formulas_are_text_to_a_spreadsheet(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("=cmd|' C calc'!A0.avi", "+1.avi", "-broken.avi", "@x.avi", "\tx.avi", "'=x.avi", "plain.avi"):
        (tmp_path / "in" / name).write_text("video")
    rows = predict_archive(StandIn(), list_files([tmp_path / "in"]), tmp_path / "o.csv")
    written = read(tmp_path / "o.csv")
    assert [row["file"][:3] for row in written] == ["'\tx", "''=", "'+1", "'-b", "'=c", "'@x", "pla"]
    assert written[3]["error"].startswith("'-broken.avi: is no video")
    assert sorted(row["file"] for row in rows) == sorted(os.listdir(tmp_path / "in"))
    predictor = StandIn()
    assert predict_archive(predictor, list_files([tmp_path / "in"]), tmp_path / "o.csv", resume=True) == rows
    assert predictor.seen == []


class TestResume:
    @pytest.fixture
    def whole(self, folder, tmp_path):
        """An output that was written without an interruption."""
        predict_archive(StandIn(), list_files([folder]), tmp_path / "o.csv")
        return tmp_path / "o.csv"

    def test_at_every_byte(self, whole, folder):
        data = whole.read_bytes()
        files = list_files([folder])
        for end in range(0, len(data) + 1, 7):
            whole.write_bytes(data[:end])
            predictor = StandIn()
            predict_archive(predictor, files, whole, resume=True)
            assert whole.read_bytes() == data
            assert len(predictor.seen) == min(6, 7 - data[:end].count(b"\r\n"))

    def test_without_an_output_begins_one(self, folder, tmp_path):
        assert len(predict_archive(StandIn(), list_files([folder]), tmp_path / "new" / "o.csv", resume=True)) == 6

    def test_files_that_came_later_stand_in_their_places(self, whole, folder):
        (folder / "aa.avi").write_text("video")
        predictor = StandIn()
        predict_archive(predictor, list_files([folder]), whole, resume=True)
        assert [path.name for path in predictor.seen] == ["aa.avi"]
        assert [row["file"] for row in read(whole)] == names(list_files([folder]))

    def test_parts_that_processes_left(self, whole, folder, tmp_path):
        data = whole.read_bytes()
        header, *rows = data.splitlines(keepends=True)
        whole.write_bytes(header + rows[5])
        (tmp_path / "o.csv.part-0-of-2.csv").write_bytes(header + rows[0] + rows[2][:9])
        (tmp_path / "o.csv.part-1-of-2.csv").write_bytes(header + rows[1] + rows[3])
        predictor = StandIn()
        predict_archive(predictor, list_files([folder]), whole, resume=True)
        assert len(predictor.seen) == 2
        assert whole.read_bytes() == data
        assert sorted(path.name for path in tmp_path.glob("o.csv*")) == ["o.csv"]

    def test_without_it_starts_over(self, whole, folder, tmp_path):
        whole.with_name("o.csv.part-0-of-2.csv").write_text("old")
        predictor = StandIn()
        predict_archive(predictor, list_files([folder]), whole)
        assert len(predictor.seen) == 6
        assert sorted(path.name for path in tmp_path.glob("o.csv*")) == ["o.csv"]

    def test_other_protocol_or_model(self, whole, folder, tiny_model, tmp_path):
        data = whole.read_bytes()
        predictor = StandIn()
        predictor.protocol = "center"
        with pytest.raises(
            ValueError, match="o.csv holds rows of another run .protocol was 'windows' and is 'center'"
        ):
            predict_archive(predictor, list_files([folder]), whole, resume=True)
        tiny_model.save_pretrained(tmp_path / "tiny")
        with pytest.raises(ValueError, match="model was .*SIMULATED.* and is 'tiny'; weights was '"):
            predict_archive(StandIn(), list_files([folder]), whole, model=tmp_path / "tiny", resume=True)
        assert whole.read_bytes() == data

    @pytest.mark.parametrize("ending", ["csv", "parquet"])
    @pytest.mark.parametrize("force", [False, True])
    def test_unusable_videos_with_force_and_without(self, folder, tmp_path, ending, force):
        class Unusable(StandIn):
            def predict_files(self, paths):
                for path, result in super().predict_files(paths):
                    if path.name == "b.avi":
                        value = 40.0 if self.force else float("nan")
                        result = replace(result, ejection_fraction=value, quality="unusable")
                    yield path, result

        first, second = Unusable(), Unusable()
        first.force, second.force = force, not force
        path = tmp_path / f"o.{ending}"
        rows = predict_archive(first, list_files([folder]), path)
        assert predict_archive(first, list_files([folder]), path, resume=True) == rows
        data = path.read_bytes()
        with pytest.raises(ValueError, match="unusable videos, such as b.avi, that were written with.* `--force`"):
            predict_archive(second, list_files([folder]), path, resume=True)
        assert path.read_bytes() == data
        assert second.seen == []

    def test_other_files_or_columns(self, whole, folder):
        with pytest.raises(ValueError, match="rows of files that are not among those given, such as a.avi"):
            predict_archive(StandIn(), list_files([folder / "c"]), whole, resume=True)
        (folder / "list.csv").write_text("path,age\na.avi,1\n")
        with pytest.raises(ValueError, match="other columns than those of this run .age"):
            predict_archive(StandIn(), read_manifest(folder / "list.csv"), whole, resume=True)

    def test_damage(self, whole, folder):
        whole.write_bytes(whole.read_bytes().replace(b"b.avi,", b""))
        with pytest.raises(ValueError, match="o.csv is damaged: row 2 has 15 cells"):
            predict_archive(StandIn(), list_files([folder]), whole, resume=True)


class TestParquet:
    def test_has_types(self, folder, tmp_path):
        predict_archive(StandIn(), list_files([folder]), tmp_path / "o.csv")
        predict_archive(StandIn(), list_files([folder]), tmp_path / "o.parquet")
        assert sorted(path.name for path in tmp_path.glob("o.*")) == ["o.csv", "o.parquet"]
        table = pd.read_parquet(tmp_path / "o.parquet")
        assert list(table) == COLUMNS
        assert table["EF_pred"].dtype == np.float64 and str(table["clips"].dtype) == "Int64"
        assert np.isnan(table["EF_pred"][2])
        expected = read(tmp_path / "o.csv")
        assert table["EF_pred"][0] == float(expected[0]["EF_pred"])
        for name in ("file", "category", "warning", "error", "model", "weights"):
            assert table[name].tolist() == [row[name] for row in expected]

    def test_is_continued(self, folder, tmp_path):
        path = tmp_path / "o.parquet"
        rows = predict_archive(StandIn(), list_files([folder]), path)
        whole = pd.read_parquet(path)
        predictor = StandIn()
        assert predict_archive(predictor, list_files([folder]), path, resume=True) == rows
        assert predictor.seen == []
        # Cut off before the end.
        predict_archive(StandIn(), list_files([folder]), tmp_path / "o.csv")
        path.unlink()
        data = (tmp_path / "o.csv").read_bytes()
        (tmp_path / "o.parquet.rows.csv").write_bytes(data[: len(data) // 2])
        assert predict_archive(predictor, list_files([folder]), path, resume=True) == rows
        assert 0 < len(predictor.seen) < 6
        pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
        assert not (tmp_path / "o.parquet.rows.csv").exists()


class TestUrls:
    @pytest.fixture
    def bucket(self, echonet_dir):
        system = fsspec.filesystem("memory")
        for number, path in enumerate(sorted((echonet_dir / "Videos").glob("*.avi"))[:3]):
            system.pipe_file(f"/bucket/Doe_John/in/{number}.avi", path.read_bytes())
        system.pipe_file("/bucket/Doe_John/in/empty.avi", b"")
        system.pipe_file("/bucket/Doe_John/in/notes.txt", b"no video")
        yield "memory://bucket/Doe_John"
        system.rm("/bucket", recursive=True)

    def test_of_inputs_and_output(self, bucket, echonet_dir, model_folder, tmp_path):
        predictor = Predictor(model_folder)
        predict_archive(predictor, list_files([f"{bucket}/in"]), f"{bucket}/out/o.csv", model=model_folder)
        data = Place(f"{bucket}/out/o.csv").read()
        (tmp_path / "o.csv").write_bytes(data)
        rows = read(tmp_path / "o.csv")
        assert [row["file"] for row in rows] == ["0.avi", "1.avi", "2.avi", "empty.avi"]
        assert rows[3]["error"] == "empty.avi: is an empty file; copy it again from its origin."
        local = predict_archive(predictor, list_files([echonet_dir / "Videos"])[:3], model=model_folder)
        assert [row["EF_pred"] for row in rows[:3]] == [row["EF_pred"] for row in local]
        assert b"Doe_John" not in data and b"bucket" not in data

    def test_of_a_file_and_a_manifest(self, bucket, tmp_path):
        assert names(list_files([f"{bucket}/in/1.avi"])) == ["1.avi"]
        assert names(list_files([f"{bucket}/in/1.avi"], absolute_paths=True)) == ["memory:///bucket/Doe_John/in/1.avi"]
        Place(f"{bucket}/list.csv").write(f"file_name\nin/1.avi\n{bucket}/in/2.avi\nin/none.avi\n".encode())
        files = read_manifest(f"{bucket}/list.csv")
        assert names(files) == ["in/1.avi", "2.avi", "in/none.avi"]
        assert len(files[1].source.read()) > 1000
        with pytest.raises(VideoReadError, match="^none.avi: does not exist"):
            files[2].source.read()
        url = (tmp_path / "a.avi").as_uri()
        (tmp_path / "a.avi").write_text("video")
        assert list_files([url])[0].source == tmp_path / "a.avi"

    def test_output_grows_and_is_continued(self, bucket, folder, monkeypatch):
        output = f"{bucket}/o.parquet"
        predict_archive(StandIn(), list_files([folder]), output)
        whole = Place(output).read()
        monkeypatch.setattr(archive, "_UPLOAD_SECONDS", -1)

        class CutOff(StandIn):
            def predict_files(self, paths):
                for number, result in enumerate(super().predict_files(paths)):
                    if number == 3:
                        assert Place(f"{output}.rows.csv").read().count(b"\r\n") == 4
                        raise KeyboardInterrupt
                    yield result

        with pytest.raises(KeyboardInterrupt):
            predict_archive(CutOff(), list_files([folder]), output)
        assert Place(output).read() is None
        predictor = StandIn()
        predict_archive(predictor, list_files([folder]), output, resume=True)
        assert len(predictor.seen) == 3
        assert Place(output).read() == whole
        assert Place(output).siblings(r".*\.csv") == []

    def test_mistakes(self, bucket, monkeypatch):
        with pytest.raises(FileNotFoundError, match="^none does not exist"):
            list_files([f"{bucket}/none"])
        system = fsspec.filesystem("memory")
        system.rm("/bucket/Doe_John/in", recursive=True)
        system.pipe_file("/bucket/Doe_John/in/notes.txt", b"no video")
        with pytest.raises(FileNotFoundError, match="^in holds no video"):
            list_files([f"{bucket}/in"])
        system.pipe_file("/bucket/Doe_John/in/large.avi", b"12345")
        monkeypatch.setattr("echomen_hf.inference.archive_files.MAX_REMOTE_BYTES", 4)
        with pytest.raises(VideoReadError, match="large.avi: has 0.0 GB, more than is read from a URL"):
            list_files([f"{bucket}/in"])[0].source.read()


def test_several_processes_need_an_output(folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="name it as `--output`"):
        predict_archive(StandIn(), list_files([folder]))


@pytest.fixture
def study(echonet_dir, tmp_path):
    """60 videos, two of which cannot be read."""
    for name in ("early", "late"):
        shutil.copytree(echonet_dir / "Videos", tmp_path / "study" / name)
    for path in sorted((tmp_path / "study").rglob("*.avi"))[5:50:40]:
        path.write_text("no video")
    return tmp_path / "study"


@pytest.mark.slow
def test_killed_three_times_equals_one_run(study, model_folder, tmp_path):
    command = [sys.executable, "-c", SLOW_COMMAND, str(study), "--model", str(model_folder)]
    output = tmp_path / "o.csv"
    for rows in (8, 25, 44):
        child = subprocess.Popen([*command, "--output", str(output), "--resume"], stdout=-3, stderr=-3)
        deadline = time.monotonic() + 400
        while not (output.exists() and output.read_bytes().count(b"\r\n") > rows):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        left = output.read_bytes()
        assert rows < left.count(b"\r\n") < 61
        output.write_bytes(left[:-3])  # as if the last line had been cut off
    predictor = Predictor(model_folder)
    resumed = predict_archive(predictor, list_files([study]), output, model=model_folder, resume=True)
    assert len(resumed) == 60
    whole = predict_archive(predictor, list_files([study]), tmp_path / "whole.csv", model=model_folder)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [bool(row["error"]) for row in whole].count(True) == 2


def test_a_kill_loses_the_file_at_its_turn_and_no_other(echonet_dir, model_folder, tmp_path):
    files, output = list_files([echonet_dir / "Videos"]), tmp_path / "o.csv"

    def run():
        computed = []

        def estimate(*arguments):
            computed.append(arguments)
            if len(computed) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return begin_estimate(*arguments)

        video_prediction.begin_estimate = estimate
        predict_archive(Predictor(model_folder, protocol="center"), files, output, model=model_folder)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(100)
    assert child.exitcode == -signal.SIGKILL
    assert [row["file"] for row in read(output)] == names(files)[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
        # Without `--multi_gpu` it starts one process where there is no GPU.
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
    ],
    ids=["torch", "accelerate"],
)
def test_two_processes_equal_one(launch, study, model_folder, tmp_path):
    output = tmp_path / "two" / "o.csv"
    child = subprocess.run(
        [
            *(sys.executable, "-m", *launch, "scripts/predict.py", str(study), "--model", str(model_folder)),
            *("--output", str(output), "--group_by", "folder"),
        ],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert child.stdout.count("60 files: ") == 1, child.stderr[-2000:]
    assert "2 of 60 files could not be read" in child.stderr
    files = list_files([study])
    rows = predict_archive(Predictor(model_folder), files, tmp_path / "one.csv", model=model_folder)
    write_groups(rows, find_groups(files, "folder"), "folder", tmp_path / "one.csv")
    assert output.read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert (output.parent / "o_by_folder.csv").read_bytes() == (tmp_path / "one_by_folder.csv").read_bytes()
    assert sorted(os.listdir(output.parent)) == ["o.csv", "o_by_folder.csv"]
