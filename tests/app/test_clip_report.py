import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from echomen_hf.app import UploadLimits
from echomen_hf.app.charts import VOLUME_PANEL, draw_experts, draw_gauge, draw_volume_curve, draw_windows
from echomen_hf.app.intake import ReceivedClip
from echomen_hf.app.reader import Reading
from echomen_hf.app.report import (
    render_evidence,
    render_heading,
    render_problem,
    render_requirements,
    render_summary,
)
from echomen_hf.model.clip_sampling_echomen import ClipSpec
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.model.sector_echomen import Sector
from echomen_hf.outline import outline_video
from helpers.outlined_hearts import KnownMasks, beating_masks


VIDEO = EchoVideo(np.zeros((150, 112, 100), np.uint8), 50.0, "test")
READING = Reading(
    ejection_fraction=38.24,
    quality="doubtful",
    reasons=("The clips of this <video> disagree.",),
    interval=(29.6, 52.3),
    coverage=0.9,
    standard_deviation=3.06,
    category="hfref",
    category_probabilities={"hfref": 0.717, "hfmref": 0.283, "hfpef": 0.0},
    experts=[36.11, math.nan, 41.22],
    weights=[0.6, 0.0, 0.4],
    window_starts=[0.0, 1.72],
    window_ejection_fractions=[35.5, 40.98],
    window_seconds=1.28,
    seconds=0.0412,
)


@pytest.mark.parametrize("draw", [draw_gauge, draw_experts, draw_windows])
def test_drawings_are_svg_in_the_colours_of_the_page(draw):
    svg = draw(READING)
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    assert "var(--body-text-color)" in svg
    assert "#010203" not in svg
    assert draw(READING) == svg


def test_drawings_name_what_they_show():
    assert all(text in draw_gauge(READING) for text in ("HFrEF", "HFmrEF", "HFpEF", ">40<", ">50<"))
    experts = draw_experts(READING)
    assert all(text in experts for text in ("expert 0: 36.1 %", "expert 1: not used", "60%", "40%"))


@pytest.mark.parametrize("ejection_fraction", [-4.0, 0.0, 100.0, 103.0])
def test_gauge_at_its_ends(ejection_fraction):
    reading = Reading(**{**vars(READING), "ejection_fraction": ejection_fraction})
    ElementTree.fromstring(draw_gauge(reading))
    ElementTree.fromstring(draw_windows(reading))


def test_summary():
    html = render_summary(ReceivedClip(VIDEO, ("Mind <this>.",)), READING)
    for text in ("38.2", "HFrEF", "reduced ejection fraction", "± 3.1 EF points", "not how accurate they are"):
        assert text in html
    assert "HFmrEF 28 %" in html
    assert "150 frames at 50 per second, 100 × 112 pixels" in html
    assert "Mind &lt;this&gt;." in html
    assert "Quality: doubtful" in html
    assert "The clips of this &lt;video&gt; disagree." in html
    assert "SYNTHETIC" not in html


def test_summary_of_an_unusable_clip_shows_no_number():
    unusable = {
        "ejection_fraction": math.nan,
        "quality": "unusable",
        "reasons": ("The picture is black.",),
        "interval": (math.nan, math.nan),
        "coverage": 0.9,
        "standard_deviation": math.nan,
        "category": None,
        "category_probabilities": {},
        "experts": [math.nan] * 3,
        "window_ejection_fractions": [math.nan] * 2,
    }
    sector = Sector((210, 40, 640, 500), "fan", 0.71, (190, 40, 460))
    video = dataclasses.replace(VIDEO, sector=sector)
    html = render_summary(ReceivedClip(video, ()), Reading(**{**vars(READING), **unusable}))
    assert "No estimate" in html
    assert "The picture is black." in html
    assert "nan" not in html
    assert "430 × 460 pixels, 210 from the left and 40 from the top" in html
    assert "confidence 71 %" in html


def test_summary_shows_the_interval_of_a_calibrated_model_only():
    html = render_summary(ReceivedClip(VIDEO, ()), READING)
    assert "90 % interval" in html
    assert "30 to 52 %" in html
    html = render_summary(ReceivedClip(VIDEO, ()), dataclasses.replace(READING, interval=None, coverage=None))
    assert "interval" not in html


def test_the_dial_shows_the_interval_or_else_the_spread():
    without = dataclasses.replace(READING, interval=None, coverage=None)
    spread = dataclasses.replace(READING, interval=(38.24 - 3.06, 38.24 + 3.06))
    assert draw_gauge(without) == draw_gauge(spread) != draw_gauge(READING)


def test_synthetic_clip_is_labelled_with_its_true_value():
    html = render_summary(ReceivedClip(VIDEO, (), 40.04, 7), READING)
    assert "SYNTHETIC" in html
    assert "True EF <strong>40.0 %</strong>" in html
    assert "<strong>−1.8</strong>" in html
    assert "seed 7" in html
    assert html.count("<li>") == 1  # the reason of the reading


def test_evidence_lists_every_number():
    html = render_evidence(READING)
    assert "<td>1.72</td><td>3.00</td><td>41.0</td>" in html
    assert "<td>1</td><td>not used</td><td>0.0</td>" in html
    assert "<td>HFmrEF</td><td>40 to below 50</td><td>28.3</td>" in html


@pytest.fixture(scope="module")
def outline():
    masks = beating_masks(num_frames=150)
    return outline_video(EchoVideo(np.where(masks, 20, 120).astype(np.uint8), 50.0, "test"), KnownMasks(masks, 6.0))


def test_both_readings_stand_side_by_side(outline):
    reading = dataclasses.replace(READING, outline=outline)
    html = render_summary(ReceivedClip(VIDEO, ()), reading)
    ef = f"{outline.ejection_fraction:.1f} %"
    assert f"EchoMEN <strong>38.2 %</strong></span> <span>outline <strong>{ef}</strong>" in html
    assert f"mean of {len(outline.beats)} beats, which differ by" in html
    low, high = outline.interval
    assert f"90 % interval {low:.0f} to {high:.0f} %" in html
    html = render_evidence(reading)
    assert html.count("<svg") == 3
    assert f'data-left="{100 * VOLUME_PANEL[0]}"' in html
    for beat in outline.beats:
        assert f"<td>{beat.ed_frame / 50:.2f}</td><td>{beat.es_frame / 50:.2f}</td>" in html


def test_volumes_are_drawn_where_the_page_expects_them(outline):
    svg = draw_volume_curve(outline)
    root = ElementTree.fromstring(svg)
    width = float(root.attrib["viewBox"].split()[2])
    # The curve spans the panel, but for the last frame.
    path = next(node.attrib["d"] for node in root.iter() if node.attrib.get("id") == "curve" for node in node)
    places = [float(part.split()[0]) / width for part in path.replace("M", "L").split("L")[1:]]
    assert places[0] == pytest.approx(VOLUME_PANEL[0], abs=0.005)
    assert places[-1] == pytest.approx(VOLUME_PANEL[0] + VOLUME_PANEL[1] * 149 / 150, abs=0.005)


def test_a_clip_without_beats_has_the_reason():
    outline = outline_video(VIDEO, KnownMasks(np.zeros(VIDEO.frames.shape, bool)))
    reading = dataclasses.replace(READING, outline=outline)
    html = render_summary(ReceivedClip(VIDEO, ()), reading)
    assert "no reading" in html and "No left ventricle was found." in html
    assert render_evidence(reading).count("<svg") == 2


def test_problem_is_escaped():
    html = render_problem("holds <script>", "try again")
    assert "<script>" not in html
    assert "The clip holds &lt;script&gt;." in html


def test_heading_and_requirements():
    heading = render_heading("owner/model", "Trained on <SYNTHETIC> clips.")
    assert "not a medical device" in heading
    assert "Trained on &lt;SYNTHETIC&gt; clips." in heading
    requirements = render_requirements(UploadLimits(max_megabytes=7, max_frames=123), ClipSpec())
    assert "meaningless for other views" in requirements
    assert "7 MB, 123 frames" in requirements
    assert "1.3 s" in requirements  # 63 frames at 50 per second
