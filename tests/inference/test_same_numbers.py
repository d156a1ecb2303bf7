"""Every way from a file to its ejection fraction gives the same number, to the last digit."""

from pathlib import Path
from typing import get_args

import pytest
from tests.model.test_dicom_reading_echomen import make_dataset, region, save

from echomen_hf import EjectionFractionPipeline, Predictor, load_echonet_dynamic, read_video
from echomen_hf.inference import predict_split, predict_video
from echomen_hf.inference.windows import SharedWindows, windows_of_engine
from echomen_hf.model.clip_sampling_echomen import ShortVideos
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.simulation import ExportSettings, export_clip, simulate_echo, write_avi


BATCH_SIZE = 4
OFFSETS = {"hfref": [-4.0, 2.0], "hfmref": [-3.0, 3.0], "hfpef": [-2.0, 1.0]}


@pytest.fixture
def row(echonet_dir):
    """The longest video, whose clips fill more than one batch."""
    return max(load_echonet_dynamic(echonet_dir)["train"], key=lambda row: row["num_frames"])


def numbers(prediction):
    return {
        "ejection_fraction": prediction.ejection_fraction,
        "interval": prediction.interval,
        "category": prediction.category,
        "experts": prediction.expert_predictions.tolist(),
        "weights": prediction.expert_weights.tolist(),
        "clips": prediction.clip_ejection_fractions.tolist(),
    }


def every_way(predictor, row):
    """Numbers by way in, with the engine and the test protocol of a predictor."""
    model, processor, path = predictor.model, predictor.processor, row["video"]["path"]
    options = {"protocol": predictor.protocol, "batch_size": BATCH_SIZE, "engine": predictor.engine}
    run = EjectionFractionPipeline(model=model, video_processor=processor, engine=predictor.engine)
    found = run(path, protocol=predictor.protocol, batch_size=BATCH_SIZE)
    ways = {
        "predictor": predictor(path),
        "bytes": predictor(Path(path).read_bytes()),
        "files": next(result for _, result in predictor.predict_files([path])),
        "video": predict_video(model, processor, read_video(path), **options),
        "split": predict_split(model, processor, [row], progress=False, **options)[0],
        "split in another process": predict_split(model, processor, [row], progress=False, num_workers=1, **options)[
            0
        ],
    }
    found["clips"] = [clip["ejection_fraction"] for clip in found["clips"]]
    expected = numbers(ways["predictor"])
    return {"pipeline": {name: found[name] for name in expected}, **{way: numbers(p) for way, p in ways.items()}}


@pytest.mark.parametrize("protocol", ["center", "windows", "7", "all"])
@pytest.mark.parametrize("has_engine", [False, True])
def test_same_numbers(experienced_model, three_channel_processor, row, protocol, has_engine):
    experienced_model.config.interval_calibration = {"coverage": 0.9, "offsets": OFFSETS, "protocol": protocol}
    experienced_model.config.recalibration = {"predicted": [0.0, 50.0, 100.0], "corrected": [30.0, 50.0, 60.0]}
    if not has_engine:
        # A network of another architecture runs without one.
        experienced_model.config.model_type = "another"
    predictor = Predictor(experienced_model, three_channel_processor, protocol, "cpu", BATCH_SIZE, share_windows=False)
    assert (predictor.engine is not None) is has_engine
    found = every_way(predictor, row)
    expected = found["predictor"]
    assert protocol in ("center", "windows") or len(expected["clips"]) > BATCH_SIZE
    for way, other in found.items():
        assert other == expected, way


def test_same_numbers_of_a_clip_on_a_screen(experienced_model, three_channel_processor, row, tmp_path):
    clip = simulate_echo(1, num_frames=100).frames
    screen = export_clip(clip, 50.0, ExportSettings(width=320, height=240, fan_height=0.7))
    write_avi(tmp_path / "screen.avi", screen.frames, fps=50)
    on_screen = {**row, "file_name": "screen", "video": {"path": str(tmp_path / "screen.avi")}, "num_frames": 100}
    predictor = Predictor(experienced_model, three_channel_processor, "windows", "cpu", BATCH_SIZE)
    found = every_way(predictor, on_screen)
    for way, other in found.items():
        assert other == found["predictor"], way
    array = predict_video(
        predictor.model,
        predictor.processor,
        EchoVideo(read_video(tmp_path / "screen.avi").frames, 50.0, "array"),
        batch_size=BATCH_SIZE,
        engine=predictor.engine,
    )
    assert numbers(array) == found["predictor"]
    three_channel_processor.do_find_sector = False
    whole = Predictor(experienced_model, three_channel_processor, "windows", "cpu", BATCH_SIZE)
    whole_screen = whole(tmp_path / "screen.avi")
    assert whole_screen.clip_ejection_fractions.tolist() != found["predictor"]["clips"]


def test_same_numbers_of_a_screen_whose_dicom_region_is_wrong(
    experienced_model, three_channel_processor, row, tmp_path
):
    clip = simulate_echo(1, num_frames=100).frames
    screen = export_clip(clip, 50.0, ExportSettings(width=320, height=240, fan_height=0.7))
    cuts_the_fan = region(110, 60, 209, 159)
    path = save(make_dataset(screen.frames, SequenceOfUltrasoundRegions=[cuts_the_fan]), tmp_path / "a.dcm")
    in_dicom = {**row, "file_name": "screen", "video": {"path": str(path)}, "num_frames": 100}
    predictor = Predictor(experienced_model, three_channel_processor, "windows", "cpu", BATCH_SIZE)
    array = EchoVideo(screen.frames, 50.0, "array")
    expected = numbers(predict_video(predictor.model, predictor.processor, array, engine=predictor.engine))
    for way, other in every_way(predictor, in_dicom).items():
        assert other == expected, way
    three_channel_processor.do_find_sector = False
    found = every_way(Predictor(experienced_model, three_channel_processor, "windows", "cpu", BATCH_SIZE), in_dicom)
    region_alone = EchoVideo(screen.frames[:, 60:160, 110:210], 50.0, "array")
    expected = numbers(predict_video(predictor.model, predictor.processor, region_alone, engine=predictor.engine))
    for way, other in found.items():
        assert other == expected, way


def test_same_numbers_of_clips_encoded_together(experienced_model, three_channel_processor, row):
    predictor = Predictor(experienced_model, three_channel_processor, "all", "cpu", BATCH_SIZE)
    windows = windows_of_engine(predictor.engine, "all", BATCH_SIZE, None)
    assert windows is not None
    parts = predictor.model, predictor._clip_processor
    options = {"protocol": "all", "batch_size": BATCH_SIZE, "engine": predictor.engine, "windows": windows}
    path = row["video"]["path"]
    expected = numbers(predictor(path))
    assert numbers(next(result for _, result in predictor.predict_files([path]))) == expected
    assert numbers(predict_video(*parts, read_video(path), **options)) == expected
    assert numbers(predict_split(*parts, [row], progress=False, **options)[0]) == expected


@pytest.mark.parametrize("rule", get_args(ShortVideos))
def test_same_numbers_of_a_video_shorter_than_a_clip(experienced_model, three_channel_processor, row, rule, tmp_path):
    path, frames = tmp_path / "short.avi", simulate_echo(3, num_frames=40).frames
    write_avi(path, frames, 50.0)
    three_channel_processor.short_videos = rule
    three_channel_processor.sampling_period = 8  # so that a clip shorter than the model's may hold a beat
    predictor = Predictor(experienced_model, three_channel_processor, "all", "cpu", BATCH_SIZE)
    found = every_way(predictor, {**row, "video": {"path": str(path)}, "num_frames": 40, "fps": 50.0})
    expected = found["predictor"]
    assert len(expected["clips"]) == 1
    assert all(way == expected for way in found.values())
    windows = SharedWindows(experienced_model.encoder)
    together = predict_video(experienced_model, three_channel_processor, read_video(path), "all", windows=windows)
    assert together.ejection_fraction == pytest.approx(expected["ejection_fraction"], abs=1e-3)
    three_channel_processor.short_videos = "loop" if rule == "zeros" else "zeros"
    other = Predictor(experienced_model, three_channel_processor, "all", "cpu", BATCH_SIZE)
    assert other(path).ejection_fraction != expected["ejection_fraction"]
