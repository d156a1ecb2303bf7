import gradio
import pytest

from echomen_hf.app import UploadLimits, build_app
from echomen_hf.checkpoints import SMALL_MODEL_NAME, SMALL_MODEL_NOTICE


def test_the_page_phones_nobody_and_cleans_up(checkpoint):
    app = build_app(checkpoint, device="cpu", concurrency=3, max_queue=5)
    assert isinstance(app, gradio.Blocks)
    assert app.analytics_enabled is False
    assert app.delete_cache == (60, 1800)
    reading = [function for function in app.fns.values() if function.concurrency_id == "model"]
    assert [function.concurrency_limit for function in reading] == [3, 3]
    # Gradio's default, "once", drops a clip that is uploaded while the saliency of the last is being computed.
    assert {function.trigger_mode for function in reading} == {"multiple"}
    assert app._queue.max_size == 5
    assert app.queue()._queue.max_size == 5  # as scripts often do before launching


def test_launched_in_any_way_it_keeps_the_upload_limit_and_its_looks(checkpoint, monkeypatch):
    given = {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda self, **options: given.update(options))
    build_app(checkpoint, limits=UploadLimits(max_megabytes=3), device="cpu").launch(
        server_port=1, footer_links=["api"]
    )
    assert given["max_file_size"] == 3_000_000
    assert given["server_port"] == 1
    assert given["footer_links"] == ["api"]
    assert ".card" in given["css"]
    assert "--hfref: #D55E00;" in given["css"]
    assert "share" not in given


def test_without_a_model_the_page_says_what_reads_the_clips():
    app = build_app(notice="Ask Ms. Smith.", device="cpu", saliency_steps=0)
    heading = next(block.value for block in app.blocks.values() if "disclaimer" in str(getattr(block, "value", "")))
    assert f"Model: {SMALL_MODEL_NAME}" in heading
    assert f"{SMALL_MODEL_NOTICE} Ask Ms. Smith." in heading


def test_missing_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder"):
        build_app(tmp_path / "none")


def test_without_saliency(checkpoint):
    app = build_app(checkpoint, device="cpu", saliency_steps=0)
    (looked,) = [block for block in app.blocks.values() if getattr(block, "elem_id", None) == "looked"]
    assert looked.visible is False
    with pytest.raises(ValueError, match="saliency_steps"):
        build_app(checkpoint, saliency_steps=-1)
