"""What two processes share and what not; one launch makes all that is looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from echomen_hf import EchoMENModel, EchoMENTrainer, EchoMENVideoProcessor
from echomen_hf.data import EvaluationClips
from echomen_hf.training.processes import (
    broadcast_buffers,
    require_shared_folder,
    seed_processes_apart,
    sees_folder_of_first_process,
    synchronised_batch_norms,
)
from helpers.gradients_of_a_batch import gradients_of_a_batch
from helpers.tiny_config import make_tiny_config


@pytest.fixture(scope="module")
def folder(echonet_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.manual_seed(0)
    EchoMENModel(make_tiny_config()).save_pretrained(folder / "model")
    script = Path(__file__).parents[1] / "helpers" / "two_processes.py"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launch, str(script), str(echonet_dir), str(folder)], capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]


def differ(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_evaluation_is_that_of_the_model_that_is_saved(ranks, videos, make_arguments):
    first, second = (rank["trained"] for rank in ranks)
    # Each process has measured batch statistics of its own, which only the first one's checkpoint has.
    assert len(differ(first["before"][-1], second["before"][-1])) > 4
    assert differ(first["after"][-1], second["after"][-1]) == []
    saved = EchoMENModel.from_pretrained(first["checkpoint"])
    assert differ(dict(saved.named_buffers()), first["before"][-1]) == []
    assert first["eval_mse"] == second["eval_mse"]
    processor = EchoMENVideoProcessor.from_pretrained(first["checkpoint"])
    evaluation = EvaluationClips(videos["validation"], processor, "windows")
    trainer = EchoMENTrainer(model=saved, args=make_arguments(), eval_dataset=evaluation)
    assert trainer.evaluate()["eval_mse"] == pytest.approx(first["eval_mse"], rel=1e-5)


def test_batch_is_shared_and_every_video_is_seen_once(ranks, videos):
    assert [rank["trained"]["per_device_train_batch_size"] for rank in ranks] == [3, 3]
    steps = len(ranks[0]["trained"]["labels"])
    seen = torch.cat([label for rank in ranks for label in rank["trained"]["labels"]])
    labels = torch.tensor(videos["train"]["ejection_fraction"], dtype=torch.float32)
    # The last step is filled up with videos from the beginning.
    assert len(seen) == 6 * steps and 6 * (steps - 1) < len(labels) <= len(seen)
    assert set(seen.tolist()) == set(labels.tolist())
    [message] = {rank["odd_batch"] for rank in ranks}
    assert "7 videos cannot be divided by 2 processes" in message and "6 or 8" in message


@pytest.mark.parametrize(("stage", "known"), [(1, "encoder.stem.0.weight"), (2, "experts.2.weight")])
def test_two_processes_give_the_gradients_of_one(ranks, folder, echonet_dir, stage, known):
    """Each of two processes sees half the batch; contrastive pairs reach across, gradients are those of the whole."""
    one = gradients_of_a_batch(str(echonet_dir), folder, stage)
    assert one[known].abs().max() > 1e-3
    for rank in ranks:
        two = rank["gradients"][stage]
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(two[name], gradient, atol=1e-10, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_noise_is_of_every_process_and_the_same_in_every_run(ranks):
    first, second = (torch.stack(rank["trained"]["noise"]) for rank in ranks)
    assert not (first == second).any()
    for rank, noise in zip(ranks, (first, second)):
        assert torch.equal(torch.stack(rank["again"]["noise"]), noise)
        assert all(map(torch.equal, rank["again"]["labels"], rank["trained"]["labels"]))


def test_folder_that_is_not_shared_is_found_before_training(ranks, folder):
    for rank in ranks:
        assert (rank["shared"], rank["apart"]) == ([True, True], [True, False])
        assert "apart-" in rank["refused"] and "1 of 2 do not see" in rank["refused"]
    assert not list(folder.glob("*/.shared*"))


def test_processes_with_unequal_batches_gather_all_samples(ranks):
    for rank, gradient in zip(ranks, ([360.0, 240.0, 180.0], [480.0, 360.0])):
        gathered = rank["gathered"]
        assert gathered["joined"].tolist() == [2.0, 3.0, 4.0, 3.0, 4.0]
        assert gathered["ranks"].tolist() == [0, 0, 0, 1, 1]
        assert gathered["loss"].item() == 288.0
        # The product divided by the factor, times the number of processes, over which gradients are averaged.
        own = gathered["joined"][gathered["ranks"] == (0 if len(gradient) == 3 else 1)]
        assert gathered["gradient"].tolist() == (2 * 288.0 / own).tolist()


def test_recipe_for_several_gpus_trains_both_stages(ranks, folder):
    run = json.loads((folder / "by_recipe" / "run.json").read_text())
    assert (run["run.num_processes"], run["training.per_device_train_batch_size"]) == (2, 12)
    for stage in (1, 2):
        state = json.loads((folder / "by_recipe" / f"stage{stage}" / "trainer_state.json").read_text())
        assert state["global_step"] == 2
    assert EchoMENModel.from_pretrained(folder / "by_recipe").config.prediction_head == "experts"


def test_synchronised_statistics_are_refused_on_processors(ranks):
    assert all("needs GPUs" in rank["sync_batch_norm"] for rank in ranks)


def test_one_process_has_nobody_to_share_with(tmp_path, tiny_model):
    before = {name: value.clone() for name, value in tiny_model.named_buffers()}
    state = torch.get_rng_state()
    broadcast_buffers(tiny_model)
    seed_processes_apart(1)
    require_shared_folder(tmp_path / "absent")
    assert sees_folder_of_first_process(tmp_path / "absent") == [True]
    assert torch.equal(state, torch.get_rng_state()) and not (tmp_path / "absent").exists()
    assert differ(before, dict(tiny_model.named_buffers())) == []


class TestSynchronisedBatchNorms:
    def test_last_as_long_as_the_context(self, tiny_model):
        layers = [layer for layer in tiny_model.modules() if isinstance(layer, nn.BatchNorm3d)]
        with synchronised_batch_norms(tiny_model):
            assert {type(layer) for layer in layers} == {nn.SyncBatchNorm}
        with synchronised_batch_norms(tiny_model, enabled=False):
            assert {type(layer) for layer in layers} == {nn.BatchNorm3d}
        assert {type(layer) for layer in layers} == {nn.BatchNorm3d}

    def test_of_one_process_are_its_own(self, tiny_model):
        clips = torch.randn(4, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        expected = tiny_model.train()(pixel_values=clips).regression
        with synchronised_batch_norms(tiny_model):
            assert torch.equal(tiny_model(pixel_values=clips).regression, expected)

    def test_training_switches_them_on_and_off(self, make_arguments, make_data, tiny_model):
        kinds = []

        class Watching(EchoMENTrainer):
            def compute_loss(self, model, *args, **kwargs):
                kinds.append(
                    {type(layer) for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)}
                )
                return super().compute_loss(model, *args, **kwargs)

        args = make_arguments(
            sync_batch_norm=True,
            activation_checkpointing=True,
            max_steps=1,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
        )
        Watching(model=tiny_model, args=args, train_dataset=make_data(2)[0]).train()
        assert kinds == [{nn.SyncBatchNorm}]
        # Checkpointed blocks are computed twice, and their statistics still move once.
        counts = {int(value) for name, value in tiny_model.named_buffers() if "num_batches" in name}
        assert counts == {1}
        assert any(isinstance(layer, nn.BatchNorm3d) for layer in tiny_model.modules())
