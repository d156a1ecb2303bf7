import csv

import pandas as pd
import pytest

from echomen_hf import EjectionFractionPipeline, Predictor
from echomen_hf.inference import archive
from echomen_hf.inference.archive import COLUMNS, predict_archive
from echomen_hf.inference.archive_files import list_files
from echomen_hf.inference.outlined_archive import OUTLINE_COLUMNS, write_pictures
from echomen_hf.model.video_reading_echomen import read_video
from echomen_hf.outline import outline_video
from helpers.outlined_hearts import DarkIsVentricle, beating_heart
from helpers.video_files import encode_video


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two hearts and a file that cannot be read, in a folder whose name is not to be told."""
    root = tmp_path_factory.mktemp("Doe_John")
    (root / "stress").mkdir()
    for name, shrink in (("a.mkv", 0.8), ("stress/b.mkv", 0.7)):
        encode_video(root / name, beating_heart(num_frames=90, shrink=shrink), codec="ffv1", pix_fmt="gray")
    (root / "broken.mkv").write_text("no video")
    return root


@pytest.fixture
def predictor(tiny_model, tiny_processor):
    return Predictor(tiny_model, tiny_processor, device="cpu", outline=DarkIsVentricle())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_beats_and_pictures(predictor, study, tmp_path, ending):
    output, overlay = tmp_path / f"o.{ending}", tmp_path / "pictures"
    rows = predict_archive(predictor, list_files([study]), output, overlay=overlay)
    assert [row["file"] for row in rows] == ["a.mkv", "broken.mkv", "stress/b.mkv"]
    assert float(rows[0]["EF_outline"]) == pytest.approx(48.8, abs=2.5)
    assert float(rows[2]["EF_outline"]) == pytest.approx(65.7, abs=2.5)
    assert [row["beats"] for row in rows] == ["2", "", "2"]
    assert rows[1]["error"] and not rows[1]["outline_beats"]
    if ending == "csv":
        assert list(read(output)[0]) == [*COLUMNS, *OUTLINE_COLUMNS]
    else:
        table = pd.read_parquet(output)
        assert table["EF_outline"].dtype == float
        assert table["beats"].tolist() == [2, pd.NA, 2]
    beats = read(tmp_path / "o_beats.csv")
    assert [(beat["file"], beat["beat"]) for beat in beats] == [
        *(("a.mkv", "1"), ("a.mkv", "2")),
        *(("stress/b.mkv", "1"), ("stress/b.mkv", "2")),
    ]
    for beat in beats:
        assert float(beat["es_seconds"]) == pytest.approx(int(beat["es_frame"]) / 50)
        edv, esv = float(beat["edv"]), float(beat["esv"])
        assert float(beat["EF_outline"]) == pytest.approx(100 * (1 - esv / edv), abs=0.1)
        assert beat["unit"] == "1000 px^3"
    drawn = sorted(path.relative_to(overlay).as_posix() for path in overlay.rglob("*") if path.is_file())
    assert drawn == ["a.mkv.mp4", "a.mkv.png", "stress/b.mkv.mp4", "stress/b.mkv.png"]
    assert read_video(overlay / "a.mkv.mp4").num_frames == 90


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_interrupted_run_keeps_its_beats(predictor, study, tmp_path, ending):
    output, files = tmp_path / f"o.{ending}", list_files([study])
    expected = predict_archive(predictor, files, tmp_path / f"whole.{ending}")

    def stop_after_one(rows, total):
        yield next(iter(rows))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_archive(predictor, files, output, progress=stop_after_one)
    seen = []

    def count(rows, total):
        seen.append(total)
        return rows

    assert predict_archive(predictor, files, output, resume=True, progress=count) == expected
    assert seen == [2]
    assert read(tmp_path / "o_beats.csv") == read(tmp_path / "whole_beats.csv")


def test_a_table_with_outlines_is_not_continued_without(predictor, tiny_model, tiny_processor, study, tmp_path):
    files = list_files([study / "a.mkv"])
    predict_archive(predictor, files, tmp_path / "o.csv")
    plain = Predictor(tiny_model, tiny_processor, device="cpu")
    with pytest.raises(ValueError, match="has other columns than those of this run .EF_outline"):
        predict_archive(plain, files, tmp_path / "o.csv", resume=True)
    with pytest.raises(ValueError, match="Overlays need outlines"):
        predict_archive(plain, files, tmp_path / "o.csv", overlay=tmp_path)


def test_without_a_table_the_beats_are_beside_the_pictures(predictor, study, tmp_path):
    predict_archive(predictor, list_files([study / "a.mkv"]), overlay=tmp_path)
    assert len(read(tmp_path / "outlines_beats.csv")) == 2


def test_only_a_table_of_beats_gives_way_to_beats(predictor, study, tmp_path):
    (tmp_path / "o_beats.csv").write_text("file,beats\na.mkv,3\n")
    with pytest.raises(ValueError, match="o_beats.csv exists and is no earlier table"):
        predict_archive(predictor, list_files([study]), tmp_path / "o.csv")
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/Doe/x.mp4"), ValueError("no size")])
def test_pictures_that_cannot_be_written_stop_nothing(predictor, study, tmp_path, monkeypatch, error):
    def fail_once(outline, folder, name):
        if name == "a.mkv":
            raise error
        write_pictures(outline, folder, name)

    monkeypatch.setattr(archive, "write_pictures", fail_once)
    rows = predict_archive(predictor, list_files([study]), tmp_path / "o.csv", overlay=tmp_path / "pictures")
    assert "a.mkv: the pictures of its outline could not be written: n" in rows[0]["warning"].lower()
    assert "Doe" not in rows[0]["warning"] and rows[0]["EF_outline"] and not rows[0]["error"]
    assert rows[2]["EF_outline"] and not rows[2]["warning"]
    assert len(read(tmp_path / "o_beats.csv")) == 4
    assert (tmp_path / "pictures" / "stress" / "b.mkv.png").is_file()


def test_overlay_that_is_a_file_is_refused_first(predictor, study, tmp_path):
    (tmp_path / "pictures").write_text("a file")
    for overlay in ("pictures", "pictures/inside"):
        with pytest.raises(ValueError, match="--overlay: (pictures|inside) cannot be a folder"):
            predict_archive(predictor, list_files([study]), tmp_path / "o.csv", overlay=tmp_path / overlay)
    assert not (tmp_path / "o.csv").exists()


def test_names_never_leave_the_folder(study, tmp_path):
    outline = outline_video(study / "a.mkv", DarkIsVentricle())
    for name in ("/data/a.mkv", "s3://bucket/a.mkv"):
        write_pictures(outline, tmp_path, name)
    drawn = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert drawn == {"data/a.mkv.png", "s3/bucket/a.mkv.png"}


def test_predictions_have_their_outline(predictor, tiny_model, tiny_processor, study):
    prediction = predictor(study / "a.mkv")
    assert prediction.outline.masks.shape == (90, 112, 112)
    assert prediction.outline.reasons == ()
    plain = Predictor(tiny_model, tiny_processor, device="cpu", check_view=False)(study / "a.mkv")
    assert plain.outline is None
    assert plain.ejection_fraction == prediction.ejection_fraction


WIDE = {"coverage": 0.9, "offsets": {"hfref": [-9, 9], "hfmref": [-9, 9], "hfpef": [-9, 9]}, "protocol": "windows"}


@pytest.mark.parametrize(
    ("estimate", "ef_error", "disagree"),
    [(20.0, 5.0, True), (38.0, 5.0, False), (70.0, 5.0, True), (20.0, None, False), (20.0, 30.0, False)],
)
def test_two_readings(tiny_model, tiny_processor, study, estimate, ef_error, disagree):
    """The outline says about 48 %, give or take its error; the estimate holds within 9 points."""
    tiny_model.config.interval_calibration = WIDE
    for expert in tiny_model.experts:
        expert.weight.data.zero_()
        expert.bias.data.fill_(estimate)
    outliner = DarkIsVentricle(ef_error)
    prediction = Predictor(tiny_model, tiny_processor, device="cpu", outline=outliner)(study / "a.mkv")
    assert prediction.ejection_fraction == pytest.approx(estimate, abs=0.1)
    assert any(reason.startswith("Two readings disagree") for reason in prediction.reasons) == disagree
    run = EjectionFractionPipeline(
        model=tiny_model,
        video_processor=tiny_processor,
        outline=lambda video: outline_video(video, outliner),
    )
    for options in ({}, {"batch_size": 3}):
        (found,) = run([str(study / "a.mkv")], **options)
        assert found["outline"].beats == prediction.outline.beats
        assert found["quality"] == prediction.quality
        assert found["reasons"] == prediction.reasons
    if disagree:
        assert prediction.quality == "doubtful"


def test_beats_protocol_takes_a_clip_around_each_end_systole(tiny_model, tiny_processor, study):
    predictor = Predictor(tiny_model, tiny_processor, device="cpu", protocol="beats", outline=DarkIsVentricle())
    prediction = predictor(study / "a.mkv")
    systoles = [beat.es_frame for beat in prediction.outline.beats]
    assert prediction.num_clips == len(systoles) == 2
    run = EjectionFractionPipeline(
        model=tiny_model, video_processor=tiny_processor, outline=lambda video: outline_video(video, DarkIsVentricle())
    )
    found = run(str(study / "a.mkv"), protocol="beats")
    half = tiny_processor.clip_spec.span(50.0) // 2
    assert [clip["start"] * 50 for clip in found["clips"]] == pytest.approx([frame - half for frame in systoles])
    assert found["ejection_fraction"] == pytest.approx(prediction.ejection_fraction, abs=1e-4)
    with pytest.raises(ValueError, match="needs outlines"):
        Predictor(tiny_model, tiny_processor, device="cpu", protocol="beats")


def test_a_pipeline_without_outline_says_so(tiny_model, tiny_processor, study):
    run = EjectionFractionPipeline(model=tiny_model, video_processor=tiny_processor)
    assert run(str(study / "a.mkv"))["outline"] is None
