import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echomen_hf import EchoMENModel
from echomen_hf.inference import load_checkpoint
from echomen_hf.simulation import SimulatedFrames, SimulatedVideos


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("teach_outlines")


def disks(radii, cells=28):
    row, column = np.ogrid[:cells, :cells]
    return torch.tensor(np.stack([(row - 13) ** 2 + (column - 14) ** 2 <= r**2 for r in radii])).float()[None]


def test_the_loss_falls_with_the_overlap_and_counts_a_wrong_ratio_more_than_a_common_factor(script):
    masks = disks([8, 6])
    losses = [script.outline_loss(20 * disks(radii) - 10, masks).item() for radii in ([8, 6], [9, 6.75], [9, 5.5])]
    assert losses[0] < 0.01
    assert losses == sorted(losses)


def test_clips_and_masks_go_through_the_same_window(script, tiny_processor):
    frames = SimulatedFrames(image_size=tiny_processor.crop_size["height"], mirrored_share=0.5, zoom_factor=1.2)
    clips = script.OutlinedClips(SimulatedVideos(4, 3), tiny_processor, frames, crop_padding=6, seed=1)
    clips.set_epoch(2)
    assert clips.masks.epoch == 2
    items = [clips[index] for index in range(4)]
    for index, item in enumerate(items):
        np.testing.assert_array_equal(item["shifts"], clips.masks[index]["shifts"])
    size = frames.image_size
    batch = script.Collator(size)(items)
    for item, mask in zip(items, batch["masks"]):
        down, right = item["shifts"].tolist()
        # a window that lies further down shows the heart further up
        moved = torch.roll(item["masks"] / 255, (-down, -right), dims=(1, 2))
        kept = slice(max(0, -down), size - max(0, down)), slice(max(0, -right), size - max(0, right))
        assert torch.allclose(mask[:, *kept], moved[:, *kept])


def test_teaching_changes_the_encoder_and_leaves_a_model_without_the_decoder(
    script, tiny_model, tiny_processor, tmp_path
):
    tiny_model.config.prediction_head = "experts"
    tiny_model.config.recalibration = {"predicted": [0.0, 100.0], "corrected": [5.0, 95.0]}
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "taught"), "--use_cpu", "true"]
    arguments += ["--simulated_videos", "8", "--simulated_val_videos", "4", "--report_to", "none"]
    arguments += ["--per_device_train_batch_size", "4", "--save_steps", "1", "--save_total_limit", "2"]
    script.main([*arguments, "--max_steps", "1"])
    first = load_file(tmp_path / "taught" / "model.safetensors")
    script.main([*arguments, "--max_steps", "2"])
    before, after = (load_checkpoint(folder)[0] for folder in (tmp_path / "model", tmp_path / "taught"))
    assert isinstance(after, EchoMENModel)
    log = json.loads((tmp_path / "taught" / "stage1" / "trainer_state.json").read_text())["log_history"]
    assert log[-1]["step"] == 2
    assert before.state_dict().keys() == after.state_dict().keys()
    stem = "encoder.stem.0.weight"
    second = load_file(tmp_path / "taught" / "checkpoint-2" / "model.safetensors")[f"model.{stem}"]
    assert torch.allclose(after.state_dict()[stem], 0.995 * first[stem] + 0.005 * second)  # goes on where it was
    assert not torch.equal(first[stem], second)
    assert not torch.equal(before.state_dict()[stem], after.state_dict()[stem])
    assert (after.config.prediction_head, after.config.recalibration) == ("regression", None)
    with pytest.raises(ValueError, match="Outlines are taught to a `--model`"):
        script.main(arguments[2:])


def test_every_evaluation_shows_the_same_clips(script, tiny_model, tiny_processor, tmp_path):
    tiny_model.config.batch_norm_momentum = 0.0
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    arguments = ["--model", str(tmp_path / "model"), "--output_dir", str(tmp_path / "taught"), "--use_cpu", "true"]
    arguments += ["--simulated_videos", "4", "--simulated_val_videos", "4", "--report_to", "none", "--max_steps", "2"]
    # The loader of the evaluation lives on with its workers, and counts its rounds.
    arguments += ["--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true"]
    script.main([*arguments, "--per_device_train_batch_size", "4", "--learning_rate", "0"])
    log = json.loads((tmp_path / "taught" / "stage1" / "trainer_state.json").read_text())["log_history"]
    errors = [entry["eval_mae"] for entry in log if "eval_mae" in entry]
    assert len(errors) == 2 and errors[0] == errors[1]
