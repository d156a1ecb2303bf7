import shutil

import numpy as np
import pytest

from echomen_hf import EjectionFractionPipeline, Predictor
from echomen_hf.inference import find_videos
from echomen_hf.simulation.other_recordings import simulate_other_recording


@pytest.fixture
def saved(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.image_mean = [40.0]
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def avi(echonet_dir):
    return sorted((echonet_dir / "Videos").glob("*.avi"))[0]


def test_model_and_processor_from_one_folder(saved, avi):
    predictor = Predictor(saved)
    assert predictor.processor.image_mean == [40.0]
    prediction = predictor(avi)
    assert 0 < prediction.ejection_fraction < 100
    assert predictor(avi.read_bytes()).ejection_fraction == prediction.ejection_fraction


@pytest.mark.filterwarnings("ignore::echomen_hf.model.clip_quality_echomen.ClipQualityWarning")
def test_another_view_is_doubtful_unless_it_is_not_looked_at(tiny_model, tiny_processor, write_video, tmp_path):
    path = write_video(tmp_path / "lung.avi", simulate_other_recording("lung", 3, 100, 50.0, 112))
    reasons = Predictor(tiny_model, tiny_processor)(path).reasons
    assert sum("apical four-chamber view" in reason for reason in reasons) == 1
    unchecked = Predictor(tiny_model, tiny_processor, check_view=False)(path).reasons
    assert unchecked == tuple(reason for reason in reasons if "four-chamber" not in reason)
    parts = {"model": tiny_model, "video_processor": tiny_processor}
    assert EjectionFractionPipeline(**parts)(str(path))["reasons"] == reasons
    assert EjectionFractionPipeline(**parts, check_view=False)(str(path))["reasons"] == unchecked


def test_model_object_needs_its_processor(tiny_model, tiny_processor, avi):
    with pytest.raises(ValueError, match="video processor"):
        Predictor(tiny_model)
    assert Predictor(tiny_model, tiny_processor, protocol="center")(avi).num_clips == 1


def test_real_dicom_cine(saved):
    examples = pytest.importorskip("pydicom.examples")
    prediction = Predictor(saved)(examples.get_path("ybr_color"))
    assert np.isfinite(prediction.ejection_fraction)
    # One second at 30 frames a second holds two of the tiny configuration's clips of 0.58 s, one shifted back.
    assert prediction.num_clips == 2


def test_bad_file_does_not_stop_the_others(saved, avi, tmp_path):
    text = tmp_path / "notes.avi"
    text.write_text("no video")
    results = dict(Predictor(saved).predict_files([text, avi, tmp_path / "missing.avi"]))
    assert isinstance(results[text], ValueError)
    assert str(text) in str(results[text])
    assert results[avi].num_clips >= 1
    assert "does not exist" in str(results[tmp_path / "missing.avi"])


def test_one_frame_has_no_ejection_fraction(saved, tmp_path):
    from PIL import Image

    still = tmp_path / "still.gif"
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(still)
    with pytest.raises(ValueError, match="one frame"):
        Predictor(saved)(still)


class TestFindVideos:
    def test_files_and_folders(self, avi, tmp_path):
        (tmp_path / "study" / "series").mkdir(parents=True)
        for name in ("b.avi", "a.MP4", "series/c.dcm"):
            shutil.copy(avi, tmp_path / "study" / name)
        dicom = pytest.importorskip("pydicom.examples").get_path("ybr_color")
        for name in ("series/IM0001", "series/1.2.840.113619.2.5", "DICOMDIR"):
            shutil.copy(dicom, tmp_path / "study" / name)
        for name in ("report.pdf", "README", ".DS_Store", "empty"):
            (tmp_path / "study" / name).write_text("" if name == "empty" else "text")
        found = find_videos([tmp_path / "study", tmp_path / "study" / "b.avi", avi])
        assert [path.name for path in found] == ["a.MP4", "b.avi", "1.2.840.113619.2.5", "IM0001", "c.dcm", avi.name]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            find_videos([tmp_path / "none"])
        with pytest.raises(FileNotFoundError, match="holds no video"):
            find_videos([tmp_path])
