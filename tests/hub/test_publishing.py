import json
import re

import numpy as np
import pytest
from safetensors.torch import load_file

from echomen_hf import Predictor
from echomen_hf.cli import invoke
from echomen_hf.hub import listing, publish_folder
from echomen_hf.hub.publishing import resolve_repository
from helpers.child_process import PUSH
from helpers.loopback_hub import READ_ONLY_TOKEN, Fault


CODE = {
    f"{name}_echomen.py"
    for name in (
        "backbone_weights",
        "clip_quality",
        "clip_sampling",
        "coded_images",
        "colour_doppler",
        "configuration",
        "container_end",
        "dicom_header",
        "dicom_levels",
        "dicom_pixels",
        "dicom_reading",
        "dicom_region",
        "echo_video",
        "float32_precision",
        "frame_arrays",
        "frame_collector",
        "gray_conversion",
        "heads",
        "heart_failure_category",
        "mjpeg_avi",
        "modeling",
        "moving_region",
        "nifti_reading",
        "pipeline",
        "prediction_interval",
        "pyav_reading",
        "r2plus1d",
        "recalibration",
        "sector",
        "simplejpeg_reading",
        "video_encoder",
        "video_prediction",
        "video_processing",
        "video_reading",
        "video_source",
    )
}
EVALUATION = {
    f"evaluation/{name}" for name in ("metrics.json", "mae_by_category.png", "scatter.png", "another_figure.png")
}
PUBLISHED = (
    CODE
    | EVALUATION
    | {
        "README.md",
        "config.json",
        "model.safetensors",
        "run.json",
        "video_preprocessor_config.json",
    }
)

CARD_AND_PIPELINES = """
import importlib.util, json, os, re, sys
assert importlib.util.find_spec("echomen_hf") is None
from huggingface_hub import hf_hub_download, HfApi
from transformers import pipeline
card = open(hf_hub_download("me/heart", "README.md")).read()
found = {}
for number, block in enumerate(re.findall(r"```python\\n(.*?)```", card, re.DOTALL)):
    names = {}
    exec(compile(block, f"block {number} of the card", "exec"), names)
    by_pipeline = "result" in names
    found[number] = names["result"]["ejection_fraction"] if by_pipeline else names["output"].ejection_fraction.item()
    model = names["estimate"].model if by_pipeline else names["model"]
    assert type(model).__module__.startswith("transformers_modules")
by_task = pipeline("video-classification", model="me/heart", trust_remote_code=True)
found["task"] = by_task.model.config.num_frames
first = HfApi().model_info("me/heart").card_data.eval_results[0]
found["results"] = [first.dataset_args["protocol"], first.metric_type, first.metric_value]
json.dump(found, open("found.json", "w"))
"""


def test_script_publishes_what_a_clean_process_loads(client, hub, run, echonet_dir, tmp_path):
    options = ["--model", run / "model", "--repo", "heart", "--data_dir", run / "data", "--private"]
    child = client(PUSH, *options)
    repository = hub.repository("me/heart")
    assert repository.files.keys() == PUBLISHED | {".gitattributes"}
    assert [commit["title"] for commit in repository.commits] == ["initial commit", "Upload EchoMEN model"]
    assert repository.private
    assert f"Published {hub.endpoint}/me/heart" in child.stdout
    assert "PatientID" in child.stdout, "a column that the card leaves out is named"
    assert not any(b"a pickle" in content for content in repository.files.values())

    video = sorted((echonet_dir / "Videos").glob("*.avi"))[0]
    (tmp_path / "clip.avi").write_bytes(video.read_bytes())
    child = client(CARD_AND_PIPELINES, package=False)
    found = json.loads((tmp_path / "found.json").read_text())
    predictor = Predictor(run / "model")
    assert found["0"] == pytest.approx(predictor(video).ejection_fraction, rel=1e-5)
    assert found["0"] == pytest.approx(float(re.search(r"([\d.]+) % h", child.stdout).group(1)), abs=0.051)
    assert found["1"] == pytest.approx(Predictor(run / "model", protocol="center")(video).ejection_fraction, rel=1e-5)
    assert found["task"] == 8
    # Errors of the ensemble are 0.75 of expert 0's: (24.5 + 24 * 1.5) / 30 * 0.75.
    assert found["results"] == ["windows", "mae", 1.5125]


def test_dry_run_lists_what_would_be_published_and_touches_nothing(run, hub, capsys, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    options = ["--model", str(run / "model"), "--data_dir", str(run / "data"), "--repo", "me/heart", "--dry_run"]
    invoke(["push", *options, "--output", str(tmp_path / "kept")])
    printed = capsys.readouterr().out
    sizes = listing(tmp_path / "kept" / "model")
    assert sizes.keys() == PUBLISHED
    rows = dict(re.findall(r"│ (\S+) +│ +(\S+ \S+) │", printed))
    assert rows.keys() - {"23"} >= PUBLISHED
    assert rows["model.safetensors"] == f"{sizes['model.safetensors'] / 1000:.1f} kB"
    assert "nothing was published" in printed
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert hub.requests == []
    with pytest.raises(ValueError, match="exists already"):
        invoke(["push", *options, "--output", str(tmp_path / "kept")])


SCENARIOS = """
import json, sys, time, urllib.request, os
time.sleep = lambda seconds: None
from huggingface_hub import constants
from echomen_hf.hub import publish_folder
results = {}
for name, faults, options in json.load(open(sys.argv[1])):
    folder = options.pop("folder", sys.argv[2])
    request = urllib.request.Request(constants.ENDPOINT + "/faults", json.dumps(faults).encode(), method="POST")
    urllib.request.urlopen(request).read()
    try:
        results[name] = ["ok", publish_folder(folder, f"me/{name}", **options).oid]
    except Exception as error:
        results[name] = [type(error).__name__, str(error)]
json.dump(results, open("results.json", "w"))
"""


@pytest.fixture
def staged(tmp_path):
    """A folder as small as a repository may be."""
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Heart\n")
    (folder / "config.json").write_text('{"model_type": "echomen"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def publish_all(client, hub, staged, tmp_path):
    """Function that plays scenarios (name, faults, options) through in one process, and tells how each ended."""

    def publish(scenarios):
        (tmp_path / "scenarios.json").write_text(json.dumps(scenarios))
        client(SCENARIOS, tmp_path / "scenarios.json", staged)
        return json.loads((tmp_path / "results.json").read_text())

    return publish


@pytest.mark.slow
def test_failures_that_pass_are_waited_out_and_others_publish_nothing(publish_all, hub, staged):
    commit, objects = "/commit/", "^/objects/"
    results = publish_all(
        [
            ("fine", [], {}),
            ("error_once", [["POST", commit, 500, 1]], {}),
            ("drop_once", [["POST", commit, "drop", 1]], {}),
            ("lost_answer", [["POST", commit, "lose_answer", 1]], {}),
            (
                "drop_each_first",
                [[m, p, "drop", 1] for m, p in (("GET", "whoami"), ("POST", "create"), ("GET", "tree"))],
                {},
            ),
            ("upload_once", [["PUT", objects, 503, 1]], {}),
            ("error_always", [["POST", commit, 500]], {}),
            ("drop_always", [["POST", commit, "drop"]], {}),
            ("upload_never", [["POST", "info/lfs", "drop"]], {}),
            ("down", [["GET", "", "drop"]], {}),
            ("gone", [["POST", commit, 404]], {}),
            ("raced", [["POST", commit, 412]], {}),
            ("wrong_token", [], {"token": "hf_wrong"}),
            ("read_only", [], {"token": READ_ONLY_TOKEN}),
        ]
    )
    for name in ("fine", "error_once", "drop_once", "lost_answer", "drop_each_first", "upload_once"):
        repository = hub.repository(f"me/{name}")
        assert results[name] == ["ok", repository.sha], name
        assert repository.files.keys() == {".gitattributes", "README.md", "config.json", "model.safetensors"}, name
        assert len(repository.commits) == 2, f"{name}: one commit and the initial one"

    expected = {
        "error_always": ("ConnectionError", r"fails \(500\), also when asked again. All files are there or none"),
        "drop_always": ("ConnectionError", r"connection to http.* failed .* may be run again"),
        "upload_never": ("ConnectionError", r"connection to http.* failed"),
        "down": ("ConnectionError", r"connection to http.* failed .*Nothing was published.*HF_ENDPOINT"),
        "gone": ("FileNotFoundError", r"does not know me/gone"),
        "raced": ("ValueError", r"me/raced was changed by someone else .*Nothing was published"),
        "wrong_token": ("PermissionError", r"does not accept the token \(401\).*HF_TOKEN.*Nothing was published"),
        "read_only": ("PermissionError", r"may not write to me/read_only \(403\).*Nothing was published"),
    }
    for name, (kind, message) in expected.items():
        assert results[name][0] == kind, results[name]
        assert re.search(message, results[name][1]), results[name]
        published = hub.repositories.get(("model", f"me/{name}"))
        assert published is None or published.files.keys() == {".gitattributes"}, name
    asked = [request for request in hub.requests if request.startswith("POST /api/models/me/error_always/commit")]
    assert len(asked) == 3


def test_what_is_refused_before_uploading(publish_all, hub, tmp_path):
    (tmp_path / "unlicensed").mkdir()
    (tmp_path / "unlicensed" / "README.md").write_text("---\nlicense: other\n---\n# Heart\n")
    hub.add("me/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"theirs"})
    hub.add("me/odd", {"config.json": b"[]"})
    hub.add("me/files", {"weights.gguf": b"theirs"})
    hub.add("me/public", {"config.json": b'{"model_type": "echomen"}'})
    hub.add("me/app", {"app.py": b"theirs"}, kind="space", sdk="gradio")
    own = hub.add("me/own", {"app.py": b"ours", "echomen_hf/old.py": b"ours"}, kind="space", sdk="gradio")
    results = publish_all(
        [
            ("bert", [], {}),
            ("odd", [], {}),
            ("files", [], {}),
            ("public", [], {"private": True}),
            ("app", [], {"repo_type": "space"}),
            ("own", [], {"repo_type": "space"}),
            ("unlicensed", [], {"folder": str(tmp_path / "unlicensed")}),
        ]
    )
    assert results["bert"] == [
        "ValueError",
        "me/bert exists and holds a model of type 'bert', not 'echomen'. Nothing was published; choose another name.",
    ]
    assert "of type None" in results["odd"][1]
    assert "no EchoMEN model (weights.gguf)" in results["files"][1]
    assert "exists and is public" in results["public"][1]
    assert "holds another app (app.py)" in results["app"][1]
    assert results["unlicensed"][0] == "ValueError"
    assert "license_name is required" in results["unlicensed"][1]
    for name in ("bert", "odd", "files", "public", "unlicensed"):
        assert len(hub.repository(f"me/{name}").commits) == 1
    assert {request for request in hub.requests if "preupload" in request} == {
        "POST /api/spaces/me/own/preupload/main"
    }
    assert results["own"] == ["ok", own.sha]
    assert "echomen_hf/old.py" not in own.files


def test_next_version_replaces_what_the_last_one_left(publish_all, hub):
    old = {"config.json": b'{"model_type": "echomen"}', "README.md": b"old", "LICENSE": b"kept", "notes.txt": b"kept"}
    stale = {"evaluation/old.png": b"old", "old_echomen.py": b"old", "model-00001-of-00002.safetensors": b"old"}
    hub.add("me/heart", {**old, **stale})
    results = publish_all([("heart", [["POST", "/commit/", "lose_answer", 1]], {}), ("heart", [], {})])
    repository = hub.repository("me/heart")
    assert results["heart"] == ["ok", repository.sha]
    kept = {".gitattributes", "LICENSE", "notes.txt"}
    assert repository.files.keys() == kept | {"README.md", "config.json", "model.safetensors"}
    assert repository.files["README.md"].endswith(b"# Heart\n")
    assert len(repository.commits) == 2, "neither a lost answer nor publishing the same again adds a commit"


@pytest.mark.slow
def test_branch_and_pull_request(publish_all, hub):
    options = {"revision": "v2", "commit_message": "Second"}
    lost = [["POST", "/commit/", "lose_answer", 1]]
    results = publish_all(
        [("branch", [], options), ("request", [], {"create_pr": True}), ("lost", lost, {"create_pr": True})]
    )
    assert hub.repository("me/branch").commits[-1] == {"title": "Second", "branch": "v2"}
    assert results["request"][0] == "ok"
    assert hub.repository("me/request").pull_requests == ["Upload EchoMEN"]
    assert hub.repository("me/request").files.keys() == {".gitattributes"}
    assert results["lost"][0] == "ConnectionError"
    assert len(hub.repository("me/lost").pull_requests) == 1, "a pull request is not opened twice"


def test_pickles_and_bad_ids_are_refused(staged, tmp_path):
    for name in ("training_args.bin", "stage1/optimizer.pt", "rng_state.pth"):
        path = staged / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"a pickle")
        with pytest.raises(ValueError, match=f"Pickles are never published.*{name}"):
            publish_folder(staged, "me/heart")
        path.unlink()
    with pytest.raises(ValueError, match="'me/heart/beat' is no id of a repository"):
        publish_folder(staged, "me/heart/beat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        publish_folder(tmp_path / "empty", "me/heart")


def test_offline_says_so(staged):
    # Tests run with HF_HUB_OFFLINE set.
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set"):
        resolve_repository("me/heart")


def test_no_token_says_how_to_get_one(monkeypatch, run):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("echomen_hf.hub.publishing.get_token", lambda: None)
    with pytest.raises(PermissionError, match="no token for the Hub. Log in by `hf auth login`, or set HF_TOKEN"):
        invoke(["push", "--model", str(run / "model"), "--repo", "me/heart"])


FROM_PYTHON = """
import sys, time, torch
time.sleep = lambda seconds: None
from echomen_hf import EchoMENModel, EchoMENTrainer, EchoMENTrainingArguments, EchoMENVideoProcessor
run, trained = sys.argv[1:]
model = EchoMENModel.from_pretrained(run)
model.add_model_tags("from-python")
print(model.push_to_hub("me/by_model", commit_message="By the model", tags=["more"]).oid)
assert not hasattr(model.config, "custom_pipelines")

torch.manual_seed(0)
model = EchoMENModel(model.config)
clips = [{"pixel_values": torch.rand(8, 1, 32, 32), "labels": torch.tensor(30.0 + i)} for i in range(8)]
args = EchoMENTrainingArguments(
    trained, stage="2", push_to_hub=True, hub_model_id="me/by_trainer", num_train_epochs=2, eval_strategy="no",
    per_device_train_batch_size=4, load_best_model_at_end=False, report_to="none", use_cpu=True, disable_tqdm=True,
    hub_strategy="all_checkpoints",
)
trainer = EchoMENTrainer(model, args, train_dataset=clips, processing_class=EchoMENVideoProcessor.from_pretrained(run))
trainer.train()
print(trainer.push_to_hub(tags="last").oid)
trainer.create_model_card(model_name="Card")
"""


def test_model_and_trainer_publish_the_same_way(client, hub, run, tmp_path):
    hub.faults = [Fault("POST", "by_trainer/commit", 500, times=3)]
    child = client(FROM_PYTHON, run / "model", tmp_path / "trained")
    assert "The checkpoint of step 2 was not published: " in child.stderr, "and training goes on"
    by_model = hub.repository("me/by_model")
    assert by_model.files.keys() == PUBLISHED | {".gitattributes"}
    assert [commit["title"] for commit in by_model.commits] == ["initial commit", "By the model"]
    assert b"- from-python\n- more\n" in by_model.files["README.md"]

    by_trainer = hub.repository("me/by_trainer")
    assert by_trainer.files.keys() == PUBLISHED - EVALUATION - {"run.json"} | {".gitattributes"}
    titles = [commit["title"] for commit in by_trainer.commits]
    assert titles == ["initial commit", "Training in progress, step 4", "End of training"]
    card = by_trainer.files["README.md"].decode()
    assert "- last\n" in card
    assert "- Stage 2: 2 epochs, 4 steps" in card
    assert "Unknown: the model has not been evaluated." in card
    (tmp_path / "weights.safetensors").write_bytes(by_trainer.files["model.safetensors"])
    pushed, kept = load_file(tmp_path / "weights.safetensors"), load_file(tmp_path / "trained" / "model.safetensors")
    assert pushed.keys() == kept.keys()
    for name, value in kept.items():
        np.testing.assert_array_equal(pushed[name], value)
    assert (tmp_path / "trained" / "README.md").read_text().count("# Card\n") == 1
    assert not (tmp_path / "trained" / "trainer_state.json").exists(), "it would say that the stage has ended"
