import json

from echomen_hf.runs.files import hashed_name
from echomen_hf.runs.training_list import SeenVideos, count_seen, write_training_list


def rows(*names, **columns):
    return [
        {"video": name, "file_name": name, **{k: v[i] for k, v in columns.items()}} for i, name in enumerate(names)
    ]


def test_videos_and_patients_are_found_again(tmp_path):
    write_training_list(tmp_path, (rows("a", "b", patient=["Jane", "Joe"]), rows("c", patient=["Jim"])))
    assert count_seen(tmp_path, rows("a", "c", "d")) == SeenVideos(2, 0)
    assert count_seen(tmp_path, rows("d", "e", "f", patient=["Joe", "Joe", "Jo"])) == SeenVideos(2, 1)
    assert count_seen(tmp_path, rows("d", patient=[""])) == SeenVideos(0, 0)


def test_no_name_is_in_the_file(tmp_path):
    write_training_list(tmp_path, (rows("clip0001", patient=["Jane Doe"]),))
    text = (tmp_path / "training_videos.json").read_text()
    assert "clip" not in text and "Jane" not in text
    # Neither is the hash that a table of unsalted ones would resolve.
    assert hashed_name("clip0001") not in text


def test_unknown_and_simulated(tmp_path):
    assert count_seen(tmp_path, rows("a")) is None
    assert count_seen("owner/name", rows("a")) is None
    write_training_list(tmp_path, ([{"file_name": "a", "seed": 3}],))
    assert count_seen(tmp_path, rows("a")) == SeenVideos(0, 0)


def test_a_training_that_continues_another_one_keeps_its_list(tmp_path):
    write_training_list(tmp_path / "first", (rows("a"),))
    write_training_list(tmp_path / "second", (rows("b"),), tmp_path / "first")
    assert count_seen(tmp_path / "second", rows("a", "b", "c")) == SeenVideos(2, 0)
    # Resumed, it is the same.
    before = (tmp_path / "second" / "training_videos.json").read_text()
    write_training_list(tmp_path / "second", (rows("b"),), tmp_path / "second")
    assert (tmp_path / "second" / "training_videos.json").read_text() == before
    assert len(json.loads(before)["lists"]) == 2


def test_what_came_before_may_not_be_known(tmp_path):
    write_training_list(tmp_path / "tuned", (rows("b"),), "owner/name")
    write_training_list(tmp_path / "again", (rows("c"),), tmp_path / "tuned")
    for folder, seen in (("tuned", 1), ("again", 2)):
        assert count_seen(tmp_path / folder, rows("b", "c", "d")) == SeenVideos(seen, 0)
        assert count_seen(tmp_path / folder, rows("a")) is None
