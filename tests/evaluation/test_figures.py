import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from echomen_hf.evaluation.figures import (
    bland_altman_figure,
    error_by_band_figure,
    expert_mae_figure,
    label_distribution_figure,
    sample_weight_figure,
    save_figures,
    scatter_figure,
)
from echomen_hf.figure_style import CATEGORY_COLOURS
from echomen_hf.labels import ExpertWeightTable, bin_counts
from echomen_hf.metrics import bland_altman_limits, ef_regression_metrics, error_by_band


@pytest.fixture(scope="module")
def references():
    generator = np.random.default_rng(0)
    return np.concatenate([generator.uniform(8, 40, 20), generator.uniform(40, 50, 15), generator.uniform(50, 85, 85)])


@pytest.fixture(scope="module")
def predictions(references):
    generator = np.random.default_rng(1)
    return {
        name: 58 + slope * (references - 58) + generator.normal(0, 4, references.size)
        for name, slope in (("EchoNet", 0.7), ("EchoMEN", 0.9))
    }


def drawn_texts(figure: Figure) -> list[Text]:
    """All that can be read in the figure; ticks beyond the limits of an axis exist but are not drawn."""
    undrawn = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        undrawn |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in undrawn]


def figures_of_every_kind(references, predictions) -> dict[str, Figure]:
    many = {f"a predictor named {position}": predictions["EchoMEN"] + position for position in range(10)}
    subtitle = "Simulated numbers; " + "a line that is long enough to need wrapping " * 3
    table = ExpertWeightTable(references, num_experts=9)
    return {
        "labels": label_distribution_figure({"train": references, "test": references[::2]}, subtitle=subtitle),
        "bands": error_by_band_figure(many, references, band_width=5, subtitle=subtitle),
        "weights": sample_weight_figure(table, train_labels=references, subtitle=subtitle),
        "scatter": scatter_figure(predictions, references, subtitle=subtitle),
        "one_scatter": scatter_figure({"EchoMEN": predictions["EchoMEN"]}, references, subtitle=subtitle),
        "experts": expert_mae_figure({**many, "oracle": references}, references, subtitle=subtitle),
        "agreement": bland_altman_figure(predictions["EchoMEN"], references, subtitle=subtitle),
    }


def test_no_text_is_cut_off_or_drawn_over_another(references, predictions):
    for name, figure in figures_of_every_kind(references, predictions).items():
        figure.draw_without_rendering()
        canvas = figure.bbox
        boxes = []
        for text in drawn_texts(figure):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= canvas.x1 and box.y1 <= canvas.y1, (name, text)
            boxes.append((box, text))
        for position, (box, text) in enumerate(boxes):
            for other_box, other in boxes[:position]:
                # A pixel of slack: boxes include the line spacing.
                overlaps = (
                    min(box.x1, other_box.x1) - max(box.x0, other_box.x0) > 1
                    and min(box.y1, other_box.y1) - max(box.y0, other_box.y0) > 1
                )
                assert not overlaps, (name, text, other)


def test_every_figure_says_its_subtitle_and_category_names(references, predictions):
    for name, figure in figures_of_every_kind(references, predictions).items():
        texts = [text.get_text() for text in drawn_texts(figure)]
        assert any("Simulated numbers" in text for text in texts), name
        for category in ("HFrEF", "HFmrEF", "HFpEF"):
            assert any(category in text for text in texts), (name, category)


def test_every_axis_with_numbers_is_labelled_with_its_unit(references, predictions):
    for name, figure in figures_of_every_kind(references, predictions).items():
        labels = [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
        assert all(labels), name
        assert any("%" in label or "EF points" in label for label in labels), name


def test_bars_of_the_label_distribution_are_the_counts_per_category():
    labels = [38.5, 39.9, 40.0, 49.0, 49.5, 50.0, 100.0]
    figure = label_distribution_figure({"train": labels, "val": [60.0]}, bin_width=2)
    panel = figure.axes[0]
    heights = {}
    for bar in panel.patches:
        if bar.get_height():
            heights[bar.get_x(), to_hex(bar.get_facecolor()).upper()] = bar.get_height()
    low, middle, high = (CATEGORY_COLOURS[name] for name in ("hfref", "hfmref", "hfpef"))
    assert heights == {(38, low): 2, (40, middle): 1, (48, middle): 2, (50, high): 1, (98, high): 1}
    assert panel.get_title(loc="left") == "train, n = 7: HFrEF 2 (28.6%), HFmrEF 3 (42.9%), HFpEF 2 (28.6%)"
    assert figure.axes[1].get_title(loc="left").startswith("val, n = 1")


def test_a_bar_across_a_boundary_is_stacked():
    figure = label_distribution_figure({"train": [38.0, 41.0, 41.5]}, bin_width=7)
    bars = [bar for bar in figure.axes[0].patches if bar.get_height()]
    assert [(bar.get_x(), bar.get_y(), bar.get_height()) for bar in bars] == [(35, 0, 1), (35, 1, 2)]


def test_lines_of_the_band_figure_are_the_mean_squared_errors(references, predictions):
    errors_panel, counts_panel = error_by_band_figure(predictions, references).axes
    lines = {line.get_label(): line for line in errors_panel.lines}
    assert set(lines) == {"EchoNet", "EchoMEN"}
    for name, values in predictions.items():
        bands = error_by_band(values, references)
        np.testing.assert_allclose(lines[name].get_ydata(), bands.errors)
        np.testing.assert_allclose(lines[name].get_xdata(), np.arange(5, 100, 10))
    assert [bar.get_height() for bar in counts_panel.patches] == bands.counts.tolist()
    assert [text.get_text() for text in counts_panel.texts if text.get_text()] == [str(n) for n in bands.counts if n]


def test_steps_of_the_weight_figure_are_the_weight_table(references):
    table = ExpertWeightTable(references, num_experts=3)
    weights_panel, counts_panel = sample_weight_figure(table, train_labels=references).axes
    steps = [patch for patch in weights_panel.patches if patch.get_label().startswith("Expert")]
    assert [step.get_label() for step in steps] == ["Expert 0 (p = 0)", "Expert 1 (p = 0.5)", "Expert 2 (p = 1)"]
    np.testing.assert_array_equal(np.stack([step.get_data().values for step in steps], axis=1), table.weights)
    np.testing.assert_array_equal(steps[0].get_data().edges, np.arange(101))
    np.testing.assert_array_equal(counts_panel.patches[0].get_data().values, bin_counts(references))
    assert weights_panel.get_yscale() == "log"


def test_weights_alone_need_one_panel(references):
    assert len(sample_weight_figure(ExpertWeightTable(references)).axes) == 1


def test_the_scatter_states_the_least_squares_line(references, predictions):
    figure = scatter_figure(predictions, references)
    for panel, (name, values) in zip(figure.axes, predictions.items(), strict=True):
        slope, intercept = np.polyfit(references, values, deg=1)
        expected = f"{name}, n = {references.size}\nslope {slope:.2f}, intercept {intercept:.1f}"
        assert panel.get_title(loc="left").replace("\N{MINUS SIGN}", "-") == expected
        lines = {line.get_label(): line for line in panel.lines}
        x, y = lines["Least-squares line"].get_data()
        assert list(x) == [references.min(), references.max()]
        np.testing.assert_allclose(y, slope * x + intercept)
        np.testing.assert_array_equal(*lines["Identity"].get_data())
        np.testing.assert_array_equal(panel.collections[0].get_offsets(), np.stack([references, values], axis=1))


def test_the_scatter_shows_predictions_outside_the_range():
    (panel,) = scatter_figure({"EchoMEN": [-6.0, 50.0, 108.0]}, [10.0, 50.0, 90.0]).axes
    assert panel.get_ylim() == (-6, 108)
    assert panel.get_xlim() == (0, 100)


def test_bar_heights_are_the_mean_absolute_errors(references, predictions):
    with_oracle = {**predictions, "oracle": references + 1}
    (panel,) = expert_mae_figure(with_oracle, references).axes
    for container, (name, values) in zip(panel.containers, with_oracle.items(), strict=True):
        metrics = ef_regression_metrics(values, references)
        assert container.get_label() == name
        expected = [metrics["mae"], metrics["mae_hfref"], metrics["mae_hfmref"], metrics["mae_hfpef"]]
        np.testing.assert_allclose([bar.get_height() for bar in container], expected)
        assert {bar.get_hatch() for bar in container} == ({"////"} if name == "oracle" else {None})
    ticks = [tick.get_text() for tick in panel.get_xticklabels()]
    assert ticks == ["All\nn = 120", "HFrEF\nn = 20", "HFmrEF\nn = 15", "HFpEF\nn = 85"]


def test_a_category_without_samples_has_no_bar_and_no_number(tmp_path):
    figure = expert_mae_figure({"EchoMEN": [61.0, 58.0]}, [60.0, 60.0])
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["1.50", "", "", "1.50"]
    assert save_figures({"experts": figure}, tmp_path)[0].stat().st_size > 0


def test_agreement_lines_are_bias_and_limits(references, predictions):
    values = predictions["EchoMEN"]
    (panel,) = bland_altman_figure(values, references).axes
    limits = bland_altman_limits(values, references)
    assert [line.get_ydata()[0] for line in panel.lines] == pytest.approx([limits.upper, limits.bias, limits.lower])
    labels = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in panel.texts]
    assert labels == [f"+1.96 sd\n{limits.upper:+.2f}", f"Bias\n{limits.bias:+.2f}", f"-1.96 sd\n{limits.lower:+.2f}"]
    points = np.concatenate([collection.get_offsets() for collection in panel.collections])
    order = np.argsort(references, kind="stable")
    expected = np.stack([(values + references) / 2, values - references], axis=1)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected[order], axis=0))
    assert [len(collection.get_offsets()) for collection in panel.collections] == [20, 15, 85]


def test_more_series_than_colours_stay_distinct(references, predictions):
    many = {f"method {position}": predictions["EchoMEN"] for position in range(16)}
    errors_panel, _ = error_by_band_figure(many, references).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in errors_panel.lines}
    assert len(looks) == 16
    (panel,) = expert_mae_figure(many, references).axes
    assert len({(to_hex(bars[0].get_facecolor()), bars[0].get_hatch()) for bars in panel.containers}) == 16


def test_saved_files_are_named_sized_and_the_same_every_time(references, predictions, tmp_path):
    def draw():
        return {
            "scatter": scatter_figure(predictions, references),
            "agreement": bland_altman_figure(references, references + 1e-3),
        }

    first = save_figures(draw(), tmp_path / "new" / "first")
    second = save_figures(draw(), tmp_path / "second")
    assert [path.name for path in first] == ["scatter.png", "agreement.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as image:
        width, height = draw()["scatter"].get_size_inches() * 150
        assert image.size == (int(width), int(height))
        assert "Software" not in image.info and not any("date" in key.lower() for key in image.info)


def test_global_settings_neither_leak_in_nor_out(references, predictions, tmp_path):
    expected = save_figures({"bands": error_by_band_figure(predictions, references)}, tmp_path / "plain")[
        0
    ].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "savefig.bbox": "tight", "font.family": "serif"}):
        before = dict(matplotlib.rcParams)
        saved = save_figures({"bands": error_by_band_figure(predictions, references)}, tmp_path / "other")[0]
        assert dict(matplotlib.rcParams) == before
    assert saved.read_bytes() == expected


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: label_distribution_figure({}), "at least one split"),
        (lambda: label_distribution_figure({"train": []}), "Split 'train' has no labels"),
        (lambda: error_by_band_figure({}, [50.0]), "at least one method"),
        (lambda: scatter_figure({}, [50.0]), "at least one method"),
        (lambda: scatter_figure({"EchoMEN": [50.0, 51.0]}, [50.0, 50.0]), "All references equal 50.0"),
        (lambda: expert_mae_figure({}, [50.0]), "at least one predictor"),
        (lambda: expert_mae_figure({"EchoMEN": [50.0, 51.0]}, [50.0]), "pair up, got 2 and 1"),
        (lambda: bland_altman_figure([50.0], [50.0]), "at least two samples"),
        (lambda: bland_altman_figure([np.nan, 50.0], [50.0, 60.0]), "must be finite"),
    ],
)
def test_nothing_is_drawn_from_nothing(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
