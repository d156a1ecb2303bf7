import gc
import threading
import time
import warnings
import weakref
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from echomen_hf import Predictor
from echomen_hf.inference import predictor as predictor_module
from echomen_hf.inference.read_ahead import read_ahead
from echomen_hf.inference.video_clips import VideoClips
from echomen_hf.model.echo_video_echomen import EchoVideo


@pytest.fixture
def files(echonet_dir):
    return sorted((echonet_dir / "Videos").glob("*.avi"))[:5]


@pytest.fixture
def predictor(experienced_model, three_channel_processor):
    def make(**options):
        return Predictor(experienced_model, three_channel_processor, **options)

    return make


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 64, "num_workers": 3}])
@pytest.mark.parametrize("protocol", ["windows", "all"])
def test_together_as_one_by_one(predictor, files, protocol, options):
    alone = [predictor(protocol=protocol)(path) for path in files]
    together = list(predictor(protocol=protocol, **options).predict_files(files))
    assert [path for path, _ in together] == files
    for (path, found), expected in zip(together, alone):
        assert found.file_name == expected.file_name == str(path)
        assert found.num_clips == expected.num_clips
        np.testing.assert_allclose(found.clip_ejection_fractions, expected.clip_ejection_fractions, atol=1e-4)
        np.testing.assert_allclose(found.expert_predictions, expected.expert_predictions, atol=1e-4)
        np.testing.assert_allclose(found.expert_weights, expected.expert_weights, atol=1e-5)
    assert np.std([prediction.ejection_fraction for prediction in alone]) > 0.01


def test_number_of_threads_changes_nothing(predictor, files):
    results = [
        [prediction.ejection_fraction for _, prediction in predictor(num_workers=n).predict_files(files)]
        for n in (1, 3)
    ]
    assert results[0] == results[1]


def test_order_is_that_of_the_files_whichever_is_read_first(predictor, files, monkeypatch):
    read = predictor_module.read_video

    def slow_first(source):
        if source == files[0]:
            time.sleep(0.3)
        return read(source)

    monkeypatch.setattr(predictor_module, "read_video", slow_first)
    assert [path for path, _ in predictor(num_workers=3).predict_files(files)] == files


def test_errors_stand_in_their_places(predictor, files, tmp_path):
    broken, missing = tmp_path / "broken.avi", tmp_path / "missing.avi"
    broken.write_text("no video")
    paths = [broken, files[0], missing, files[1], broken]
    results = list(predictor(batch_size=8).predict_files(paths))
    assert [path for path, _ in results] == paths
    assert [isinstance(result, Exception) for _, result in results] == [True, False, True, False, True]
    assert "missing.avi: does not exist" in str(results[2][1])


def test_failure_of_the_model_is_not_that_of_a_file(predictor, files, monkeypatch):
    found = predictor()
    monkeypatch.setattr(found, "engine", lambda clips: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(found.predict_files(files))


def test_nothing(predictor):
    assert list(predictor().predict_files([])) == []


def test_results_come_while_files_still_arrive(predictor, files):
    taken = []

    def endless():
        for number in count():
            taken.append(number)
            yield files[number % len(files)]

    results = predictor(protocol="center", batch_size=2, num_workers=2).predict_files(endless())
    for number, (path, _) in enumerate(islice(results, 20)):
        assert path == files[number % len(files)]
        # Two threads read four ahead, and a batch of two waits for its second.
        assert len(taken) <= number + 6
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read_ahead")]


def test_long_video_is_never_a_long_tensor(predictor, tmp_path, monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (400, 32, 32), dtype=np.uint8)
    monkeypatch.setattr(predictor_module, "read_video", lambda source: EchoVideo(frames, 50.0, str(source)))
    found = predictor(protocol="all", batch_size=4, share_windows=False)
    engine, sizes = found.engine, []

    def watched(clips):
        sizes.append(tuple(clips.shape))
        return engine(clips)

    monkeypatch.setattr(found, "engine", watched)
    ((_, prediction),) = found.predict_files([tmp_path / "long.avi"])
    assert prediction.num_clips == 400 - 28
    # One channel, since the three are equal.
    assert set(sizes) == {(4, 8, 1, 32, 32)}


def test_only_needed_frames_are_kept(three_channel_processor):
    video = EchoVideo(np.zeros((1000, 64, 64), np.uint8), 50.0, "long")
    clips = VideoClips.of(video, three_channel_processor, "center")
    assert len(clips) == 1
    assert clips._frames.shape == (8, 32, 32)
    assert clips[0].shape == (8, 32, 32)


def test_end_of_a_short_video_is_filled(predictor, tmp_path, write_video):
    path = write_video(tmp_path / "short.avi", np.random.default_rng(0).integers(0, 255, (10, 32, 32), dtype=np.uint8))
    found = predictor(force=True)
    ((_, together),) = found.predict_files([path])
    assert together.ejection_fraction == pytest.approx(found(path).ejection_fraction, abs=1e-4)


@pytest.mark.parametrize("option", ["batch_size", "num_workers"])
def test_numbers_below_one_are_refused(predictor, option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        predictor(**{option: 0})


class TestWarnings:
    @staticmethod
    def read(path):
        time.sleep(0.01)
        for number in range(int(path.name)):
            warnings.warn(f"{path.name}: warning {number}", stacklevel=1)
        return path.name

    def test_each_comes_with_its_file(self):
        paths = [Path(str(number % 3)) for number in range(12)]
        with pytest.warns(UserWarning) as heard:
            for file in read_ahead(paths, self.read, 3):
                assert len(heard) == 0
                file.warn()
                assert [str(warning.message) for warning in heard] == [
                    f"{file.path.name}: warning {number}" for number in range(int(file.content))
                ]
                heard._list.clear()
            # `pytest.warns` wants one in the end.
            warnings.warn("own", stacklevel=1)

    def test_others_are_heard_at_once(self):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            for file in read_ahead([Path("1"), Path("1")], self.read, 1):
                warnings.warn("from the main thread", stacklevel=1)
                assert str(heard[-1].message) == "from the main thread"
                assert len(heard) == 1
                heard.clear()
                assert len(file.warned) == 1

    def test_what_shows_warnings_is_put_back(self):
        before = warnings.showwarning
        list(read_ahead([Path("1")], self.read, 1))
        assert warnings.showwarning is before
        reading = read_ahead([Path("0")] * 9, self.read, 1)
        next(reading)
        assert warnings.showwarning is not before
        reading.close()
        assert warnings.showwarning is before

    def test_warning_turned_into_an_error_is_the_error_of_its_file(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = [file.content for file in read_ahead([Path("0"), Path("1")], self.read, 1)]
        assert found[0] == "0"
        assert isinstance(found[1], UserWarning)

    def test_of_a_prediction_come_just_before_it(self, predictor, files, tmp_path, write_video):
        coloured = np.full((40, 64, 64, 3), 60, np.uint8)
        coloured[10:30, 20:44, 24:40] = (180, 30, 20)
        coloured += (np.arange(40, dtype=np.uint8) % 2 * 60)[:, None, None, None]
        paths = [files[0], write_video(tmp_path / "coloured.avi", coloured, source_format="rgb24"), files[1], files[2]]
        with pytest.warns(UserWarning, match="coloured, as in colour Doppler") as heard:
            seen = [len(heard) for _ in predictor(batch_size=2, num_workers=2).predict_files(paths)]
        assert seen[0] == 0
        assert seen[1] == seen[3] >= 1


def test_files_that_cannot_be_read_do_not_hold_back_a_result(predictor, files, tmp_path):
    taken = []

    def paths():
        for path in (files[0], *(tmp_path / f"missing{number}.avi" for number in range(60))):
            taken.append(path)
            yield path

    results = predictor(batch_size=8, protocol="center").predict_files(paths())
    path, first = next(results)
    assert path == files[0] and first.num_clips == 1
    assert len(taken) < 40
    assert sum(isinstance(result, Exception) for _, result in results) == 60


def test_errors_do_not_keep_what_was_read_before(tmp_path):
    class Payload:
        """Something large that a reader holds when it fails."""

    alive = []

    def read(path):
        payload = Payload()
        alive.append(weakref.ref(payload))
        raise ValueError(f"{path} is damaged")

    gc.disable()
    try:
        errors = [file.content for file in read_ahead([tmp_path / str(number) for number in range(5)], read, 1)]
        assert [str(error) for error in errors] == [f"{tmp_path / str(number)} is damaged" for number in range(5)]
        assert [payload() for payload in alive] == [None] * 5
    finally:
        gc.enable()
