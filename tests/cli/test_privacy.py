"""Folders above what commands are given, and fields of DICOM files, hold patients' names: no output repeats them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset


# One process, since each needs seconds to start.
COMMANDS = """
import json, sys
from echomen_hf.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        print("status", end.code, *arguments[:1], flush=True)
"""
SECRETS = ("Smith_John_19530412", "Clinic_Miller", "SMITH^JOHN", "ID-4711", "19530412", "Dr. Brown")


def write_dicom(path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64), np.uint8)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.PatientName, data.PatientID, data.PatientBirthDate = "SMITH^JOHN", "ID-4711", "19530412"
    data.ReferringPhysicianName = "Dr. Brown"
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData, data.FrameTime = frames.tobytes(), "20"
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def finished(recipe, echonet_dir, tmp_path_factory):
    """Everything that commands wrote to a folder, and what they printed, with tracebacks and all log lines."""
    root = tmp_path_factory.mktemp("archive") / "Smith_John_19530412"
    given, out = root / "Clinic_Miller", root / "results"
    shutil.copytree(echonet_dir, given / "data")
    write_dicom(given / "clip.dcm")
    (given / "no.avi").write_text("no video")
    out.mkdir()
    data, model = ["--data_dir", str(given / "data")], str(out / "model")
    train = ["train", str(recipe), *data, "--frame_cache", str(out / "frames")]
    settings = yaml.safe_load(recipe.read_text())
    settings.pop("model_config")
    # Paths in a recipe are as private as those on the command line.
    (root / "more.yaml").write_text(json.dumps({**settings, "model": model, "data_dir": str(given / "data")}))
    more = ["train", str(root / "more.yaml"), "--stage", "2", "--output_dir", "more"]
    relative = f"../{given.name}"
    commands = [
        [*train, "--output_dir", model],
        [*train, "--output_dir", model],
        more,
        [*more, "--seed", "8"],
        ["train", str(recipe), "--data_dir", f"{relative}/none", "--output_dir", "no"],
        ["evaluate", "--data_dir", f"{relative}/data", "--model", "model", "--output", "test"],
        ["evaluate", *data, "--model", str(given / "data"), "--output", str(out / "none")],
        ["calibrate", *data, "--model", model],
        ["predict", str(given), "--model", model, "--output", str(out / "predictions.csv")],
        ["push", "--model", model, "--repo", "me/echomen", "--dry_run", "--output", str(out / "staged"), *data],
        ["push", "--model", str(given / "data"), "--repo", "me/echomen", "--dry_run"],
    ]
    child = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=out,
        env={**os.environ, "ECHOMEN_HF_TRACEBACK": "1", "TRANSFORMERS_VERBOSITY": "info"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return out, child.stdout, child.stderr


def test_commands_did_what_they_were_asked(finished):
    out, printed, errors = finished
    status = [line.split()[1:] for line in printed.splitlines() if line.startswith("status")]
    expected = [0, 0, 0, 2, 2, 0, 2, 0, 1, 0, 2]
    assert [int(code) for code, _ in status] == expected, errors[-3000:]


def test_no_file_holds_a_folder_above_or_a_field_of_a_patient(finished):
    out, _, _ = finished
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"run.json", "metrics.json", "training_args.json", "trainer_state.json", "README.md"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert any("checkpoint-" in str(path) for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (*SECRETS, str(out.parent.parent)):
            assert secret.encode() not in content, (path.relative_to(out), secret)


def test_nothing_printed_holds_them_and_names_are_kept(finished):
    out, printed, errors = finished
    for secret in (*SECRETS, str(out.parent.parent)):
        for line in [*printed.splitlines(), *errors.splitlines()]:
            assert secret not in line
    assert "Traceback" in errors
    assert "Model, video processor and logs are in model" in printed
    assert "FileList.csv" in errors and "../" not in errors
    assert "ValueError: data holds no model" in errors
    assert "more holds a run with other settings (training.seed was 42 and is 8)" in errors


def test_run_and_evaluation_are_recognised_by_checksums(finished):
    out, _, _ = finished
    more = json.loads((out / "more" / "run.json").read_text())
    assert (more["run.model"], len(more["run.model_sha256"])) == ("model", 64)
    metrics = json.loads((out / "test" / "metrics.json").read_text())
    assert (metrics["model"], metrics["data_dir"]) == ("model", "data")
    assert metrics["file_list_sha256"] == more["run.file_list_sha256"]
    # `echomen push` found the evaluation beside the model.
    assert (out / "staged" / "model" / "evaluation" / "metrics.json").is_file()
