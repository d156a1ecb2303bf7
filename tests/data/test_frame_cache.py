import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from echomen_hf import EchoMENVideoProcessor, load_echonet_dynamic
from echomen_hf.data import EvaluationClips, FrameCache, TrainingClips, collate_clips, frame_cache, pixel_statistics
from echomen_hf.data.decoded_frames import DecodedFrames
from echomen_hf.model.video_source_echomen import VideoReadError


@pytest.fixture(scope="module")
def videos(echonet_dir):
    return load_echonet_dynamic(echonet_dir, split="train").select(range(6))


@pytest.fixture
def cache(videos, tiny_processor, tmp_path):
    return FrameCache.build(tmp_path / "cache", videos, tiny_processor)


@pytest.fixture
def count_decoded(monkeypatch):
    """Names of the videos that are decoded from now on."""
    names = []
    original = DecodedFrames.read

    def read(self, row, indices=None):
        names.append(row["file_name"])
        return original(self, row, indices)

    monkeypatch.setattr(DecodedFrames, "read", read)
    return names


def assert_equal_clips(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


class TestFrames:
    def test_are_the_decoded_ones(self, cache, videos, tiny_processor):
        decoded = DecodedFrames(tiny_processor)
        for row in videos:
            np.testing.assert_array_equal(cache.read(row), decoded.read(row))
            some = np.array([1, 5, 6])
            np.testing.assert_array_equal(cache.read(row, some), decoded.read(row, some))

    def test_training_and_evaluation_clips_are_the_same_with_and_without(self, cache, videos, tiny_processor):
        for direct, cached in (
            (TrainingClips(videos, tiny_processor, 2, 3), TrainingClips(videos, tiny_processor, 2, 3, frames=cache)),
            (EvaluationClips(videos, tiny_processor, "3"), EvaluationClips(videos, tiny_processor, "3", cache)),
        ):
            for index in range(len(direct)):
                assert_equal_clips(direct[index], cached[index])
        assert pixel_statistics(videos, tiny_processor, 4) == pixel_statistics(videos, tiny_processor, 4, frames=cache)

    def test_reach_loader_processes(self, cache, videos, tiny_processor):
        clips = TrainingClips(videos, tiny_processor, frames=cache)
        clips[0]
        alone, shared = (list(DataLoader(clips, 3, num_workers=n, collate_fn=collate_clips)) for n in (0, 2))
        for one, other in zip(alone, shared):
            assert_equal_clips(one, other)

    def test_are_not_pickled(self, cache, videos):
        cache.read(videos[0])
        assert len(pickle.dumps(cache)) < 5000
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).read(videos[1]), cache.read(videos[1]))

    def test_of_a_video_that_is_not_held(self, cache):
        with pytest.raises(KeyError, match="does not hold 0XMISSING"):
            cache.read({"file_name": "0XMISSING"})


class TestBuild:
    def test_size_is_that_of_the_frames(self, cache, videos, tmp_path):
        assert (tmp_path / "cache" / "frames.bin").stat().st_size == sum(videos["num_frames"]) * 32 * 32
        assert len(cache) == 6

    def test_again_decodes_nothing(self, cache, videos, tiny_processor, tmp_path, count_decoded):
        FrameCache.build(tmp_path / "cache", videos, tiny_processor)
        assert count_decoded == []

    def test_other_split_is_added(self, videos, tiny_processor, tmp_path, count_decoded):
        FrameCache.build(tmp_path / "cache", videos.select(range(2)), tiny_processor)
        count_decoded.clear()
        cache = FrameCache.build(tmp_path / "cache", videos.select(range(4)), tiny_processor)
        assert count_decoded == videos["file_name"][2:4]
        np.testing.assert_array_equal(cache.read(videos[0]), DecodedFrames(tiny_processor).read(videos[0]))

    def test_interrupted_continues(self, videos, tiny_processor, tmp_path, monkeypatch, count_decoded):
        original = frame_cache.zlib.crc32
        calls = []

        def dies_at_the_third(frames):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return original(frames)

        with monkeypatch.context() as patch:
            patch.setattr(frame_cache.zlib, "crc32", dies_at_the_third)
            with pytest.raises(KeyboardInterrupt):
                FrameCache.build(tmp_path / "cache", videos, tiny_processor, num_threads=1)
        count_decoded.clear()
        cache = FrameCache.build(tmp_path / "cache", videos, tiny_processor)
        assert count_decoded == videos["file_name"][2:]
        cache.verify()
        for row in videos:
            np.testing.assert_array_equal(cache.read(row), DecodedFrames(tiny_processor).read(row))

    def test_half_a_line_and_frames_that_are_gone_are_made_again(self, cache, videos, tiny_processor, tmp_path):
        folder = tmp_path / "cache"
        with open(folder / "index.jsonl", "a") as index:
            index.write('{"name": "0XHALF", "sta')
        with open(folder / "frames.bin", "r+b") as frames:
            frames.truncate(cache._entries[videos[4]["file_name"]]["end"] - 1)
        repaired = FrameCache.build(folder, videos, tiny_processor)
        repaired.verify()
        for row in videos:
            np.testing.assert_array_equal(repaired.read(row), DecodedFrames(tiny_processor).read(row))

    def test_changed_video_is_decoded_again(self, echonet_dir, videos, tiny_processor, tmp_path, count_decoded):
        rows = [dict(row) for row in videos.select(range(3))]
        for row in rows:
            copy = tmp_path / f"{row['file_name']}.avi"
            shutil.copy(row["video"]["path"], copy)
            row["video"] = {"path": str(copy), "bytes": None}
        FrameCache.build(tmp_path / "cache", rows, tiny_processor)
        shutil.copy(rows[0]["video"]["path"], rows[1]["video"]["path"])
        os.utime(rows[1]["video"]["path"], ns=(1, 1))
        count_decoded.clear()
        cache = FrameCache.build(tmp_path / "cache", rows, tiny_processor)
        assert count_decoded == [rows[1]["file_name"]]
        np.testing.assert_array_equal(cache.read(rows[1]), cache.read(rows[0]))

    def test_bad_videos_are_all_named_and_the_others_kept(self, videos, tiny_processor, tmp_path):
        rows = [dict(row) for row in videos.select(range(4))]
        for position in (0, 2):
            path = tmp_path / f"bad{position}.avi"
            path.write_text("no video")
            rows[position]["video"] = {"path": str(path), "bytes": None}
        with pytest.raises(VideoReadError, match=r"(?s)2 videos could not be read.*bad0.avi.*bad2.avi"):
            FrameCache.build(tmp_path / "cache", rows, tiny_processor)
        assert len(FrameCache(tmp_path / "cache")) == 2

    def test_frames_of_another_size_are_refused(self, cache, videos, tmp_path):
        other = EchoMENVideoProcessor(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40})
        with pytest.raises(ValueError, match="made otherwise.*height.*choose another folder"):
            FrameCache.build(tmp_path / "cache", videos, other)
        assert len(FrameCache(tmp_path / "cache")) == 6

    def test_frames_of_another_decoder_are_refused(self, cache, videos, tiny_processor, tmp_path):
        with pytest.raises(ValueError, match=r"made otherwise \(decoder: \['pyav'\] instead of \['simplejpeg'\]\)"):
            FrameCache.build(tmp_path / "cache", videos, tiny_processor, decoder="simplejpeg")
        assert len(FrameCache(tmp_path / "cache")) == 6

    def test_caches_from_before_the_decoder_was_recorded_are_continued(
        self, cache, videos, tiny_processor, tmp_path, count_decoded
    ):
        index = tmp_path / "cache" / "index.jsonl"
        header, *entries = index.read_text().splitlines()
        old = {name: value for name, value in json.loads(header).items() if name != "decoder"}
        index.write_text("\n".join([json.dumps(old), *entries]) + "\n")
        assert len(FrameCache.build(tmp_path / "cache", videos, tiny_processor)) == 6
        assert count_decoded == []

    def test_decoder_is_the_one_asked_for(self, videos, tiny_processor, tmp_path):
        cache = FrameCache.build(tmp_path / "cache", videos, tiny_processor, decoder="simplejpeg")
        decoded = DecodedFrames(tiny_processor, decoder="simplejpeg")
        for row in videos:
            np.testing.assert_array_equal(cache.read(row), decoded.read(row))
        assert json.loads((tmp_path / "cache" / "index.jsonl").read_text().splitlines()[0])["decoder"] == "simplejpeg"

    def test_full_disk_is_found_before_anything_is_decoded(
        self, videos, tiny_processor, tmp_path, monkeypatch, count_decoded
    ):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(frame_cache.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(OSError, match="of 6 videos needs 0.0 GB.*choose another folder"):
            FrameCache.build(tmp_path / "cache", videos, tiny_processor)
        assert count_decoded == []

    def test_folder_without_cache(self, tmp_path):
        with pytest.raises(ValueError, match="holds no frame cache"):
            FrameCache(tmp_path)

    def test_index_of_another_format(self, tmp_path):
        (tmp_path / "index.jsonl").write_text(json.dumps({"format": 99}) + "\n")
        with pytest.raises(ValueError, match="not the index of a frame cache of format 1"):
            FrameCache(tmp_path)


def test_verify_names_damaged_videos(cache, videos, tmp_path):
    cache.verify()
    with open(tmp_path / "cache" / "frames.bin", "r+b") as frames:
        frames.seek(cache._entries[videos[3]["file_name"]]["start"] + 100)
        byte = frames.read(1)
        frames.seek(-1, os.SEEK_CUR)
        frames.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match=f"1 videos are damaged.*{videos[3]['file_name']}"):
        FrameCache(tmp_path / "cache").verify()
