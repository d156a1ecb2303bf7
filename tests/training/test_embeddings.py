import pytest
import torch

from echomen_hf import EchoMENModel, EchoMENTrainingArguments
from echomen_hf.data import collate_clips, with_pixel_values
from echomen_hf.training.embeddings import TrainingEmbeddings, embed_for_stage_2
from echomen_hf.training.fitting import fit


@pytest.fixture
def stage_2_arguments(make_arguments):
    def make(draws=3, **changes):
        return make_arguments(stage="2", embedding_draws=draws, **changes)

    return make


@pytest.fixture
def count_passes(monkeypatch):
    """Names of the passes over the data that run from now on."""
    from echomen_hf.training import embeddings as embedding_cache

    names = []
    original = embedding_cache.embed

    def embed(model, dataset, args, name):
        names.append(name)
        return original(model, dataset, args, name)

    monkeypatch.setattr(embedding_cache, "embed", embed)
    return names


def unpacked(item):
    """What a model takes in of an item."""
    return {"pixel_values": with_pixel_values(collate_clips([item]))["pixel_values"]}


def test_epoch_shows_the_clips_that_training_on_videos_draws(tiny_model, make_data, stage_2_arguments, tmp_path):
    clips, evaluation = make_data(seed=5)
    train, val = embed_for_stage_2(tiny_model, clips, evaluation, stage_2_arguments(), tmp_path)
    for epoch in range(5):
        train.set_epoch(epoch)
        clips.set_epoch(epoch % 3)
        for index in (0, 4):
            with torch.no_grad():
                expected = tiny_model(**unpacked(clips[index])).embedding[0]
            torch.testing.assert_close(train[index]["embedding"], expected)
            assert train[index]["labels"] == clips[index]["labels"]
    assert len(train) == len(clips) and len(val) == len(evaluation)
    with torch.no_grad():
        expected = tiny_model(**unpacked(evaluation[2])).embedding[0]
    torch.testing.assert_close(val[2]["embedding"], expected)
    assert val[2]["labels"] == evaluation[2]["labels"]


def test_views_are_draws_one_after_the_other():
    embeddings = torch.arange(5.0)[:, None, None].expand(5, 3, 2)  # the number of the draw
    dataset = TrainingEmbeddings(embeddings, [50.0, 60.0, 70.0], num_views=2)
    seen = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert dataset[1]["embedding"].shape == (2, 2)
        seen.append(dataset[1]["embedding"][:, 0].tolist())
    assert seen == [[0, 1], [2, 3], [4, 0]]
    assert TrainingEmbeddings(embeddings[:1], [50.0, 60.0, 70.0], num_views=2)[0]["embedding"].shape == (2,)


def test_with_a_draw_per_epoch_the_model_is_that_of_training_on_videos(
    videos, tiny_config, tiny_processor, make_arguments, tmp_path
):
    def train(name, **changes):
        torch.manual_seed(0)
        args = make_arguments(
            output_dir=str(tmp_path / name),
            stage="both",
            num_train_epochs=1,
            stage2_num_train_epochs=3,
            stage2_learning_rate=1e-2,
            **changes,
        )
        return fit(
            EchoMENModel(tiny_config), tiny_processor, videos["train"], videos["validation"], args, crop_padding=3
        )

    through_encoder, cached = train("videos"), train("embeddings", embedding_draws=3)
    start = EchoMENModel.from_pretrained(tmp_path / "videos" / "stage1")
    assert not torch.equal(start.experts[1].weight, through_encoder.experts[1].weight)
    for name, value in through_encoder.state_dict().items():
        torch.testing.assert_close(value, cached.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    fewer = train("fewer", embedding_draws=1)
    assert (fewer.experts[1].weight - cached.experts[1].weight).abs().max() > 1e-4


def test_finished_passes_are_not_run_again(tiny_model, make_data, stage_2_arguments, tmp_path, count_passes):
    first, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(2), tmp_path)
    assert count_passes == ["validation", "train-000", "train-001"]
    count_passes.clear()
    second, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(3), tmp_path)
    assert count_passes == ["train-002"]
    assert torch.equal(first.embeddings, second.embeddings[: len(first.embeddings)])


def test_other_encoder_or_other_clips_are_embedded_anew(
    tiny_model, make_data, stage_2_arguments, tmp_path, count_passes
):
    embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(1), tmp_path)
    count_passes.clear()
    embed_for_stage_2(tiny_model, *make_data(seed=9), stage_2_arguments(1), tmp_path)
    assert count_passes == ["validation", "train-000"]
    count_passes.clear()
    with torch.no_grad():
        tiny_model.get_input_embeddings().weight.add_(0.1)
    embed_for_stage_2(tiny_model, *make_data(seed=9), stage_2_arguments(1), tmp_path)
    assert count_passes == ["validation", "train-000"]


def test_damaged_file_is_made_again(tiny_model, make_data, stage_2_arguments, tmp_path, count_passes):
    first, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(2), tmp_path)
    path = tmp_path / "train-001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    count_passes.clear()
    second, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(2), tmp_path)
    assert count_passes == ["train-001"]
    assert torch.equal(first.embeddings, second.embeddings)


def test_processes_share_the_passes(tiny_model, make_data, stage_2_arguments, tmp_path, monkeypatch, count_passes):
    alone, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(3), tmp_path / "alone")
    count_passes.clear()
    monkeypatch.setattr(EchoMENTrainingArguments, "world_size", property(lambda self: 2))
    monkeypatch.setattr(EchoMENTrainingArguments, "process_index", property(lambda self: 1))
    with pytest.raises(OSError, match="validation, train-001 are not in .*same folder"):
        embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(3), tmp_path / "shared")
    assert count_passes == ["train-000", "train-002"]
    monkeypatch.setattr(EchoMENTrainingArguments, "world_size", property(lambda self: 1))
    monkeypatch.setattr(EchoMENTrainingArguments, "process_index", property(lambda self: 0))
    shared, _ = embed_for_stage_2(tiny_model, *make_data(), stage_2_arguments(3), tmp_path / "shared")
    assert torch.equal(alone.embeddings, shared.embeddings)


def test_negative_number_of_draws(make_arguments):
    with pytest.raises(ValueError, match="`embedding_draws` must not be negative"):
        make_arguments(embedding_draws=-1)


def test_draws_are_shown_in_turn():
    embeddings = TrainingEmbeddings(torch.arange(6.0).reshape(2, 3, 1), [10.0, 20.0, 30.0])
    shown = []
    for epoch in range(3):
        embeddings.set_epoch(epoch)
        shown.append([item["embedding"].item() for item in (embeddings[0], embeddings[1], embeddings[2])])
    assert shown == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
