import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.data.clip_vectors import encoder_checksum, read_clip_vectors, write_clip_vectors
from echomen_hf.inference.engines.export_folder import ExportedEncoder


def make_parts():
    """Two passes: two clips of a.avi and one of b.avi, then one of c.avi."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4, 3, generator=generator)
    columns = {
        "file_name": ["a", "a", "b", "c"],
        "clip_start": [0, 64, 0, 7],
        "draw": [0, 0, 0, 0],
        "split": ["train", "train", "train", "test"],
        "EF": [30.0, 30.0, 55.5, 61.25],
    }
    parts = [
        (vectors[:3], {key: values[:3] for key, values in columns.items()}),
        (vectors[3:], {key: values[3:] for key, values in columns.items()}),
    ]
    return vectors, parts


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_what_is_written_is_read(suffix, tmp_path):
    vectors, parts = make_parts()
    path = tmp_path / f"vectors{suffix}"
    assert write_clip_vectors(path, parts, "windows", "f00d") == 4
    found = read_clip_vectors(path)
    assert torch.equal(found.vectors, vectors)
    assert found.file_names == ["a", "b", "c"]
    assert [clips.tolist() for clips in found.clips] == [[0, 1], [2], [3]]
    assert found.ejection_fractions.tolist() == [30.0, 55.5, 61.25]
    assert (found.protocol, found.size, found.encoder_sha256) == ("windows", 3, "f00d")
    rows = found.rows()
    assert rows["train"]["file_name"][:] == ["a", "b"] and rows["test"]["ejection_fraction"][:] == [61.25]


def table(**columns):
    plain = {"FileName": ["a.avi", "b.avi"], "embedding": [[1.0, 2.0], [3.0, 4.0]]}
    return pd.DataFrame({**plain, **columns})


def read(frame, tmp_path):
    frame.to_parquet(tmp_path / "other.parquet")
    return read_clip_vectors(tmp_path / "other.parquet")


def read_safetensors(columns, tmp_path):
    save_file({"vectors": torch.zeros(2, 3)}, tmp_path / "x.safetensors", {"columns": json.dumps(columns)})
    return read_clip_vectors(tmp_path / "x.safetensors")


def test_file_of_another_origin(tmp_path):
    found = read(table(embedding=[np.float64([1, 2]), np.float64([3, 4])], Extra=["x", "y"]), tmp_path)
    assert torch.equal(found.vectors, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert found.protocol == "vectors" and found.ejection_fractions is None
    # Names with and without the ending of a video are the same.
    assert [clips.tolist() for clips in found.clips_of([{"file_name": "b"}, {"file_name": "a"}])] == [[1], [0]]


def test_checksum_is_that_of_the_encoder_alone(tiny_model, tmp_path):
    expected = encoder_checksum(tiny_model)
    with torch.no_grad():
        tiny_model.regression_head.weight.add_(1)
    tiny_model.save_pretrained(tmp_path)
    assert encoder_checksum(EchoMENModel.from_pretrained(tmp_path)) == expected
    with torch.no_grad():
        tiny_model.get_input_embeddings().weight.add_(0.1)
    assert encoder_checksum(tiny_model) != expected
    assert encoder_checksum(EchoMENModel(EchoMENConfig(vector_size=3))) is None
    tiny_model.encoder = ExportedEncoder(None)
    assert encoder_checksum(tiny_model) is None


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_clips_are_told_apart_by_seconds(suffix, tmp_path):
    columns = {"file_name": ["a.avi", "a.avi"], "clip_start": [0.0, 0.64], "EF": [None, None]}
    if suffix == ".parquet":
        found = read(
            table(FileName=columns["file_name"], clip_start=columns["clip_start"], EF=columns["EF"]), tmp_path
        )
    else:
        found = read_safetensors(columns, tmp_path)
    assert [clips.tolist() for clips in found.clips] == [[0, 1]]
    assert np.isnan(found.ejection_fractions).all()


class TestBadInput:
    def test_vectors_of_different_length(self, tmp_path):
        with pytest.raises(ValueError, match=r"other.parquet: vectors have different lengths, 2 and 3 \(b.avi\)"):
            read(table(embedding=[[1.0, 2.0], [3.0, 4.0, 5.0]]), tmp_path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_vectors_that_are_not_finite(self, value, tmp_path):
        with pytest.raises(ValueError, match=r"the vector of clip 1 \(b.avi\) holds NaN or infinity"):
            read(table(embedding=[[1.0, 2.0], [3.0, value]]), tmp_path)

    def test_duplicate_files(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"two vectors are of the same clip, \('a.avi',\). Clips of one video need"
        ):
            read(table(FileName=["a.avi", "a.avi"]), tmp_path)
        with pytest.raises(ValueError, match=r"two vectors are of the same clip, \('a.avi', 5.0\)"):
            read(table(FileName=["a.avi", "a.avi"], clip_start=[5, 5]), tmp_path)
        assert len(read(table(FileName=["a.avi", "a.avi"], clip_start=[5, 6]), tmp_path).clips[0]) == 2

    @pytest.mark.parametrize("other", ["a.mp4", "a"])
    def test_two_videos_whose_names_differ_in_the_ending(self, other, tmp_path):
        with pytest.raises(ValueError, match=f"other.parquet: a.avi and {other} differ in the ending alone"):
            read(table(FileName=["a.avi", other]), tmp_path)

    def test_clip_without_a_name(self, tmp_path):
        with pytest.raises(ValueError, match="other.parquet: the column FileName has no value for clip 1; fill it in"):
            read(table(FileName=["a.avi", None]), tmp_path)

    def test_labels_without_vectors(self, tmp_path):
        with pytest.raises(ValueError, match="no vector of 1 of 2 videos that have a label, such as c"):
            read(table(), tmp_path).clips_of([{"file_name": "a"}, {"file_name": "c"}])

    def test_vectors_without_labels(self, tmp_path):
        with pytest.raises(ValueError, match="has no column EF, or no column Split: give the data set"):
            read(table(), tmp_path).rows()

    def test_labels_that_are_none(self, tmp_path):
        found = read(table(EF=[55.0, None], Split=["TRAIN", "VAL"]), tmp_path)
        with pytest.raises(ValueError, match="EF of 1 videos is missing or not within 0 to 100 %, such as that of b"):
            found.rows()

    def test_labels_that_are_fractions(self, tmp_path):
        found = read(table(EF=[0.55, 0.4], Split=["TRAIN", "VAL"]), tmp_path)
        with pytest.raises(ValueError, match="other.parquet: every EF lies between 0.4 and 0.55.*multiply it by 100"):
            found.rows()

    def test_two_labels_of_a_video(self, tmp_path):
        frame = table(FileName=["a.avi", "a.avi"], clip_start=[5, 6], EF=[50.0, 51.0])
        with pytest.raises(ValueError, match="a.avi has different values of ejection_fraction: 50.0, 51.0"):
            read(frame, tmp_path)

    def test_unknown_split(self, tmp_path):
        with pytest.raises(ValueError, match="b.avi is in the split 'dev'; splits are TRAIN, VAL and TEST"):
            read(table(EF=[55.0, 40.0], Split=["TRAIN", "dev"]), tmp_path).rows()

    def test_missing_columns(self, tmp_path):
        with pytest.raises(ValueError, match="other.parquet has no column vector; it has FileName, EF"):
            read(table(EF=[1.0, 2.0]).drop(columns="embedding"), tmp_path)
        with pytest.raises(ValueError, match="column embedding holds double and no lists of numbers"):
            read(table(embedding=[1.0, 2.0]), tmp_path)

    def test_no_such_file_or_kind(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no file of vectors .*none.parquet"):
            read_clip_vectors(tmp_path / "none.parquet")
        with pytest.raises(ValueError, match=r"in .parquet or .safetensors files, got vectors.csv"):
            read_clip_vectors(tmp_path / "vectors.csv")

    @pytest.mark.parametrize("name", ["damaged.parquet", "damaged.safetensors"])
    def test_damaged_file(self, name, tmp_path):
        (tmp_path / name).write_bytes(b"PAR1 nothing")
        with pytest.raises(ValueError, match=f"{name} is no"):
            read_clip_vectors(tmp_path / name)

    def test_names_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match="x.safetensors: the column file_name has 1 values for 2 vectors"):
            read_safetensors({"file_name": ["a"]}, tmp_path)
        for columns, known in (({"EF": [50.0, 60.0]}, "ejection_fraction"), (["EF"], "none"), (5, "none")):
            with pytest.raises(ValueError, match=rf"got \(2, 3\) and the columns {known}\."):
                read_safetensors(columns, tmp_path)

    @pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ({"clip_start": [0.0, None]}, "the column clip_start has no value for clip 1"),
            ({"ClipStart": ["0", "x"]}, "the column ClipStart must hold numbers, one for each clip: .*'x'"),
            ({"LVEF": ["50", "low"]}, "the column LVEF must hold numbers, one for each clip: .*'low'"),
            ({"EF": [[50.0], [60.0]]}, "the column EF must hold numbers"),
            ({"split": [["TRAIN"], ["VAL"]]}, "the column split must hold texts"),
        ],
    )
    def test_columns_of_another_kind(self, suffix, column, message, tmp_path):
        with pytest.raises(ValueError, match=f"^(other|x){suffix}: {message}"):
            if suffix == ".parquet":
                read(table(**column), tmp_path)
            else:
                read_safetensors({"file_name": ["a.avi", "b.avi"], **column}, tmp_path)

    def test_lists_of_other_lengths_or_none(self, tmp_path):
        with pytest.raises(ValueError, match="x.safetensors: the column EF has 1 values for 2 vectors"):
            read_safetensors({"file_name": ["a", "b"], "EF": [50.0]}, tmp_path)
        for value in (50.0, "high"):
            with pytest.raises(ValueError, match="x.safetensors: the column EF must hold numbers, one for each clip"):
                read_safetensors({"file_name": ["a", "b"], "EF": value}, tmp_path)

    @pytest.mark.parametrize("vectors", [[["x", "y"], ["z", "w"]], [[[1.0], [2.0]], [[3.0], [4.0]]]])
    def test_vectors_that_are_no_numbers(self, vectors, tmp_path):
        with pytest.raises(ValueError, match=r"other.parquet: the column embedding holds list<.*no lists of numbers"):
            read(table(embedding=vectors), tmp_path)
