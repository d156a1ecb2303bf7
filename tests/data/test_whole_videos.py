from __future__ import annotations

import numpy as np
import pytest
import torch

from echomen_hf import load_echonet_dynamic, read_video
from echomen_hf.data.whole_videos import WholeVideos


def test_every_frame_of_a_video_resized(echonet_dir, tiny_processor) -> None:
    rows = load_echonet_dynamic(echonet_dir)["test"]
    videos = WholeVideos(rows, tiny_processor)
    assert len(videos) == len(rows)
    item, whole = videos[1], read_video(rows[1]["video"])
    assert (item["file_name"], item["fps"]) == (rows[1]["file_name"], whole.fps)
    assert item["frames"].dtype == torch.uint8
    assert item["frames"].shape == (whole.num_frames, 32, 32)
    np.testing.assert_array_equal(item["frames"], tiny_processor.resize_frames(whole.frames))


def test_split_without_videos_is_refused(tiny_processor) -> None:
    with pytest.raises(ValueError, match="holds no video"):
        WholeVideos([], tiny_processor)
