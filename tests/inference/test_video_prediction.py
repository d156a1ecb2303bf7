import numpy as np
import pytest
import torch

from echomen_hf import load_echonet_dynamic, read_video
from echomen_hf.inference import VideoPrediction, predict_split, predict_video
from echomen_hf.inference.video_clips import ClipsOfSplit
from echomen_hf.inference.windows import windows_of_model


@pytest.fixture(scope="module")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir, split="train[:6]")


@pytest.fixture
def lively_model(tiny_model):
    """Heads whose answers differ from clip to clip and from expert to expert."""
    generator = torch.Generator().manual_seed(5)
    for part in (tiny_model.experts, tiny_model.aggregator, tiny_model.regression_head):
        for parameter in part.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator)
    return tiny_model


@pytest.mark.parametrize("protocol", ["center", "windows", "4"])
def test_prediction_is_the_mean_over_clips(lively_model, tiny_processor, videos, protocol):
    from echomen_hf.model.clip_sampling_echomen import protocol_starts

    video = read_video(videos[1]["video"])
    starts = protocol_starts(protocol, video.num_frames, video.fps, tiny_processor.clip_spec)
    with torch.inference_mode():
        output = lively_model(pixel_values=tiny_processor.make_clips(video, starts))
    found = predict_video(lively_model, tiny_processor, video, protocol, batch_size=2)
    assert found.num_clips == len(starts)
    np.testing.assert_allclose(found.clip_ejection_fractions, output.ejection_fraction.numpy(), rtol=1e-5)
    assert found.ejection_fraction == pytest.approx(output.ejection_fraction.mean().item(), rel=1e-5)
    assert found.regression == pytest.approx(output.regression.mean().item(), rel=1e-5)
    np.testing.assert_allclose(found.expert_predictions, output.expert_predictions.mean(0).numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.expert_weights.sum(), 1, rtol=1e-6)


def test_split_agrees_with_its_videos_one_by_one(lively_model, tiny_processor, videos):
    together = predict_split(lively_model, tiny_processor, videos, "windows", batch_size=5, progress=False)
    assert [prediction.file_name for prediction in together] == list(videos["file_name"])
    for row, found in zip(videos, together):
        alone = predict_video(lively_model, tiny_processor, read_video(row["video"]), "windows")
        assert found.ejection_fraction == pytest.approx(alone.ejection_fraction, rel=1e-5)
        np.testing.assert_allclose(found.expert_weights, alone.expert_weights, rtol=1e-4)
    spread = [prediction.ejection_fraction for prediction in together]
    assert max(spread) - min(spread) > 0.01


def test_a_split_without_videos_is_refused(lively_model, tiny_processor, videos):
    for make in (
        lambda: ClipsOfSplit([], tiny_processor, "center"),
        lambda: predict_split(lively_model, tiny_processor, videos.select([]), progress=False),
    ):
        with pytest.raises(ValueError, match="The evaluation split holds no video; check how the data set is split"):
            make()


def test_loader_processes_change_nothing(lively_model, tiny_processor, videos):
    results = [
        [
            p.ejection_fraction
            for p in predict_split(lively_model, tiny_processor, videos, num_workers=n, progress=False)
        ]
        for n in (0, 2)
    ]
    assert results[0] == results[1]


def test_experts_left_out_by_routing_are_averaged_over_the_clips_that_asked_them(lively_model, tiny_processor, videos):
    lively_model.config.expert_top_k = 1
    found = predict_video(lively_model, tiny_processor, read_video(videos[0]["video"]), "all")
    assert found.expert_weights.sum() == pytest.approx(1)
    asked = found.expert_weights > 0
    assert np.isfinite(found.expert_predictions[asked]).all()
    assert np.isnan(found.expert_predictions[~asked]).all()
    assert np.isfinite(found.expert_spread)


def test_summary_of_a_prediction():
    prediction = VideoPrediction(
        "clip", 44.0, 45.0, np.array([40.0, 44.0, 47.5]), np.array([0.2, 0.3, 0.5]), np.array([42.0, 46.0])
    )
    assert prediction.category == "hfmref"
    assert prediction.num_clips == 2
    assert prediction.clip_sd == 2.0
    assert prediction.expert_spread == 7.5


def test_engine_takes_the_place_of_the_encoder(lively_model, tiny_processor, videos):
    asked = []

    def engine(clips):
        asked.append(len(clips))
        return lively_model.encoder(clips)

    plain, other = (
        predict_split(lively_model, tiny_processor, videos, batch_size=5, progress=False, engine=encode)
        for encode in (None, engine)
    )
    assert [found.ejection_fraction for found in plain] == [found.ejection_fraction for found in other]
    assert sum(asked) == sum(found.num_clips for found in plain)
    video = read_video(videos[0]["video"])
    far = predict_video(lively_model, tiny_processor, video, engine=lambda clips: 100 * lively_model.encoder(clips))
    assert abs(far.ejection_fraction - plain[0].ejection_fraction) > 1


def test_unknown_protocol(lively_model, tiny_processor, videos):
    with pytest.raises(ValueError, match="Unknown protocol 'some'"):
        predict_split(lively_model, tiny_processor, videos, "some")


def test_clips_encoded_together_take_their_frames_from_where_single_clips_do(lively_model, tiny_processor, videos):
    class Black:
        def read(self, row, indices=None):
            return np.zeros((len(indices), 32, 32), dtype=np.uint8)

    windows = windows_of_model(lively_model, "every8", batch_size=4)
    options = {"protocol": "every8", "progress": False, "frames": Black()}
    alone = predict_split(lively_model, tiny_processor, videos, **options)
    together = predict_split(lively_model, tiny_processor, videos, windows=windows, **options)
    for one, other in zip(alone, together):
        np.testing.assert_allclose(one.clip_ejection_fractions, other.clip_ejection_fractions, atol=1e-4)
    seen = predict_split(lively_model, tiny_processor, videos, "every8", windows=windows, progress=False)
    assert abs(seen[0].ejection_fraction - together[0].ejection_fraction) > 1e-3
