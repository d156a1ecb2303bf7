import numpy as np
import pytest
from matplotlib.text import Text

from echomen_hf.comparison.comparison_figures import (
    error_by_band_of_methods,
    mae_by_category_of_methods,
    scatter_of_methods,
    trade_of_methods,
)
from echomen_hf.comparison.results import seeds_of


REFERENCES = np.array([25.0, 35.0, 45.0, 55.0, 65.0])
PREDICTIONS = {
    "EchoNet": [REFERENCES + 2, REFERENCES + 4],
    "EchoMEN": [REFERENCES + 1],
}


CLOSE = {"EchoMEN": [REFERENCES + 1], **{f"method {n}": [REFERENCES + 1 + n / 40] for n in range(12)}}


def test_error_by_band_is_averaged_over_seeds():
    errors, counts = error_by_band_of_methods(PREDICTIONS, REFERENCES, emphasised="EchoMEN").axes
    echonet, echomen = errors.get_lines()[:2]
    drawn = np.asarray(echonet.get_ydata(), dtype=float)
    assert drawn[2:7] == pytest.approx([(4 + 16) / 2] * 5)
    assert np.isnan(drawn[:2]).all()  # bands without videos
    assert np.asarray(echomen.get_ydata(), dtype=float)[2:7] == pytest.approx([1] * 5)
    assert echomen.get_linewidth() > echonet.get_linewidth() and echomen.get_color() == "#000000"
    assert [bar.get_height() for bar in counts.patches[2:7]] == [1] * 5


def test_bars_are_means_over_seeds():
    (panel,) = mae_by_category_of_methods(PREDICTIONS, REFERENCES, emphasised="EchoMEN").axes
    echonet, echomen = (container for container in panel.containers if hasattr(container, "patches"))
    assert [bar.get_height() for bar in echonet] == [3, 3, 3, 3]
    assert [bar.get_height() for bar in echomen] == [1, 1, 1, 1]
    whisker = echonet.errorbar.lines[2][0].get_segments()[0]
    assert whisker[1][1] - whisker[0][1] == pytest.approx(2 * 2**0.5)
    assert echomen.errorbar is None  # one seed has no spread
    assert [label.get_text() for label in panel.get_xticklabels()][1] == "HFrEF\nn = 2"


def test_every_method_has_a_panel_with_its_mean_line():
    predictions = {f"method {n}": [0.5 * REFERENCES + 20, 0.7 * REFERENCES + 10] for n in range(6)}
    panels = scatter_of_methods(predictions, REFERENCES).axes
    assert sum(panel.get_visible() for panel in panels) == 6
    assert panels[5].get_title(loc="left") == "method 5\nslope 0.60, intercept 15.0"
    points = panels[0].collections[0].get_offsets()
    assert np.asarray(points)[:, 1] == pytest.approx(0.5 * REFERENCES + 20)


def test_trade_shows_the_spread_over_seeds_and_names_every_method():
    predictions = {"EchoNet": [REFERENCES + 0.75, REFERENCES + 1.75], **CLOSE}
    figure = trade_of_methods(predictions, REFERENCES, emphasised="EchoMEN")
    (panel,) = figure.axes
    echonet = panel.get_lines()[1]  # after the line of the error bars
    assert [float(value[0]) for value in echonet.get_data()] == [1.25, 1.25]
    across, up, *none = (line.get_segments()[0] for line in panel.collections[:4])
    assert np.ptp(across[:, 0]) == np.ptp(up[:, 1]) == pytest.approx(2**0.5)
    assert np.ptp(none) == 0  # one seed has no spread
    assert [text.get_text() for text in panel.texts] == list(predictions)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel.texts]
    names = [Text.get_window_extent(text) for text in panel.texts]  # without their lines
    assert not any(one.overlaps(other) for n, one in enumerate(names) for other in names[:n])
    assert all(panel.bbox.containsx(box.x0) and panel.bbox.containsx(box.x1) for box in boxes)


def test_a_method_that_failed_does_not_hide_the_others():
    predictions = {**CLOSE, "broken": [REFERENCES + 20, REFERENCES + 22]}
    (panel,) = trade_of_methods(predictions, REFERENCES, emphasised="EchoMEN").axes
    assert panel.get_xlim()[1] < 2 and panel.get_ylim()[1] < 2
    note, *names = [text.get_text() for text in panel.texts]
    assert note == "Beyond the panel: broken (21.00 ± 1.41, 21.00 ± 1.41)"
    assert names == list(CLOSE)


def test_no_other_method_is_black():
    predictions = {f"method {n}": [REFERENCES + n] for n in range(15)} | {"EchoMEN": [REFERENCES]}
    lines = error_by_band_of_methods(predictions, REFERENCES, emphasised="EchoMEN").axes[0].get_lines()[:16]
    assert [line.get_label() for line in lines if line.get_color() == "#000000"] == ["EchoMEN"]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 16


def test_seeds(make_cell):
    cells = [make_cell(name, seed, [50.0, 60.0], [50.0, 60.0]) for name in ("sqinv", "ddir") for seed in (0, 1)]
    assert seeds_of(cells) == "seeds 0, 1"
    assert seeds_of([*cells, make_cell("uvt", 0, [50.0], [50.0])]) == "seeds 0, 1; uvt: 0"
    assert seeds_of(cells[:1]) == "seed 0"
