from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echomen_hf import read_video
from echomen_hf.data import validation
from echomen_hf.data.layouts.echonet_dynamic import read_file_list
from echomen_hf.data.loading import load_echonet_dynamic
from echomen_hf.data.validation import VideoProblem, VideoValidationError, raise_for_problems, validate_videos


def check(echonet: Any, level: Any = "headers") -> list[VideoProblem]:
    return validate_videos(read_file_list(echonet.root), level, num_workers=2, progress=False)


@pytest.mark.parametrize("level", ["headers", "frames"])
def test_healthy_videos_give_no_problem(echonet: Any, level: str) -> None:
    assert check(echonet, level) == []
    raise_for_problems([])


def test_problems_come_in_the_order_of_the_rows(echonet: Any, row: Any) -> None:
    names = [f"0X{letter}" for letter in "ABCDEFGH"]
    for name in names:
        echonet.add_video(name)
    for name in ("0XF", "0XB"):
        (echonet.root / "Videos" / f"{name}.avi").write_text("text")
    echonet.write_list([row(name, "TRAIN") for name in names])
    problems = check(echonet)
    assert [Path(problem.file).stem for problem in problems] == ["0XB", "0XF"]
    assert "is not a video" in problems[0].problem
    assert "check that the file" in problems[0].remedy


def test_still_image(echonet: Any) -> None:
    echonet.add_video("0XB", num_frames=1)
    (problem,) = check(echonet)
    assert problem.file.endswith("0XB.avi")
    assert problem.problem == "has one frame; EF needs at least 2"


@pytest.mark.parametrize(("stated", "accepted"), [(6, True), (7, False), (5, True), (4, False), (60, False)])
def test_frame_count_against_the_file_list(echonet: Any, row: Any, stated: int, accepted: bool) -> None:
    echonet.write_list([row("0XA", "TRAIN", NumberOfFrames=stated)])
    problems = check(echonet)
    if accepted:
        assert problems == []
    else:
        assert problems[0].problem == f"has 6 frames, but its table states {stated}"
        assert "NumberOfFrames" in problems[0].remedy


def test_tiny_frames(echonet: Any, write_video: Any) -> None:
    write_video(echonet.root / "Videos" / "0XA.avi", np.zeros((6, 8, 48), np.uint8))
    (problem,) = check(echonet)
    assert "frames of 48x8 pixels" in problem.problem


def test_absurd_frame_rate_is_a_problem_not_a_warning(
    echonet: Any, write_video: Any, ramp: Any, recwarn: pytest.WarningsRecorder
) -> None:
    write_video(echonet.root / "Videos" / "0XA.avi", ramp(6), fps=Fraction(1, 10))
    (problem,) = check(echonet)
    assert "unbelievable frame rate" in problem.problem
    assert not recwarn.list


def test_file_that_was_cut_off_is_found_without_decoding(echonet: Any, row: Any) -> None:
    path = echonet.add_video("0XA", num_frames=60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    echonet.write_list([row("0XA", "TRAIN", NumberOfFrames=60)])
    for level in ("headers", "frames"):
        (problem,) = check(echonet, level)
        assert problem.file == str(path)
        assert "of the 60 that its header promises" in problem.problem


def test_only_decoding_finds_a_frozen_picture(echonet: Any, write_video: Any) -> None:
    write_video(echonet.root / "Videos" / "0XA.avi", np.full((6, 32, 48), 90, np.uint8))
    assert check(echonet, "headers") == []
    (problem,) = check(echonet, "frames")
    assert problem.problem == "all 6 frames are the same"


def test_what_compression_changes_is_no_motion(echonet: Any, write_video: Any) -> None:
    rows, columns = np.ogrid[:112, :112]
    still = (125 + 90 * np.sin(rows / 6) * np.cos(columns / 9)).astype(np.uint8)
    path = write_video(echonet.root / "Videos" / "0XA.avi", still[None].repeat(30, axis=0))
    assert (read_video(path).frames != read_video(path, [0]).frames).any()
    (problem,) = validate_videos([{"video": str(path)}], "frames", progress=False)
    assert problem.problem == "all 30 frames are the same"


def test_any_error_is_a_problem_of_its_file(echonet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("of a library")

    monkeypatch.setattr(validation, "probe_video", fail)
    problems = check(echonet)
    assert problems[0].file.endswith("0XA.avi")
    assert {problem.problem for problem in problems} == {"cannot be read (RuntimeError)"}


def test_data_sets_and_dictionaries_of_splits(echonet: Any, tmp_path: Path) -> None:
    echonet.add_video("0XB", num_frames=1)
    data = load_echonet_dynamic(echonet.root, cache_dir=tmp_path / "cache")
    assert len(validate_videos(data, progress=False)) == 1
    assert validate_videos(data["train"], progress=False) == []
    stream = load_echonet_dynamic(echonet.root, "validation", streaming=True, cache_dir=tmp_path / "cache")
    assert len(validate_videos(stream, progress=False)) == 1


def test_transforms_of_a_data_set_are_not_run(echonet: Any, tmp_path: Path) -> None:
    data = load_echonet_dynamic(echonet.root, "train", cache_dir=tmp_path / "cache")
    transformed = data.with_transform(lambda batch: {"pixel_values": [0 for _ in batch["video"]]})
    assert validate_videos(transformed, progress=False) == []
    assert "pixel_values" in transformed[0]


def test_rows_that_only_hold_a_path_or_bytes(echonet: Any) -> None:
    path = echonet.add_video("0XB", num_frames=1)
    rows = [{"video": str(path)}, {"video": {"path": "0XB.avi", "bytes": path.read_bytes()}}]
    problems = validate_videos(rows, progress=False)
    assert [problem.file for problem in problems] == [str(path), "0XB.avi"]


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="level must be 'headers' or 'frames', got 'all'"):
        validate_videos([], "all")  # type: ignore[arg-type]


def test_one_error_lists_the_first_twenty() -> None:
    problems = [VideoProblem(f"0X{i}.avi", f"is broken {i}", "copy it again") for i in range(23)]
    with pytest.raises(VideoValidationError) as error:
        raise_for_problems(problems)
    lines = str(error.value).splitlines()
    assert lines[0] == "23 videos cannot be used:"
    assert lines[1] == "  0X0.avi: is broken 0; copy it again"
    assert lines[20] == "  0X19.avi: is broken 19; copy it again"
    assert lines[21:] == ["  ... and 3 more"]
    with pytest.raises(VideoValidationError, match="^1 video cannot be used"):
        raise_for_problems(problems[:1])


def test_progress_is_shown_on_request(echonet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    validate_videos(read_file_list(echonet.root), progress=True)
    assert "Checking video headers" in capsys.readouterr().err
    validate_videos(read_file_list(echonet.root), progress=False)
    assert capsys.readouterr().err == ""
