import numpy as np
import pytest

from echomen_hf.evaluation.example_figure import example_predictions_figure


def offsets(panel, label):
    (found,) = [points for points in panel.collections if points.get_label().startswith(label)]
    return np.asarray(found.get_offsets())


def test_every_video_has_its_reference_prediction_experts_and_weights():
    figure = example_predictions_figure(
        ["a.avi", "a/very/long/path/to/a_video_with_a_very_long_name.avi"],
        [30.0, 60.0],
        [35.0, 58.0],
        [[32.0, 41.0], [np.nan, 58.0]],
        [[2 / 3, 1 / 3], [0.0, 1.0]],
        subtitle="SYNTHETIC",
    )
    left, right = figure.axes
    np.testing.assert_array_equal(offsets(left, "reference"), [[30, 0], [60, 1]])
    np.testing.assert_array_equal(offsets(left, "prediction"), [[35, 0], [58, 1]])
    np.testing.assert_array_equal(offsets(left, "expert 1")[:, 0], [41, 58])
    assert np.isnan(np.ma.filled(offsets(left, "expert 0")[1, 0], np.nan))
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", "a_video_with_a_very_l…"]
    bars = sorted((bar.get_y(), bar.get_x(), bar.get_width()) for bar in right.patches)
    np.testing.assert_allclose([bar[1:] for bar in bars], [[0, 2 / 3], [2 / 3, 1 / 3], [0, 0], [0, 1]])
    figure.canvas.draw()


def test_without_experts_there_is_one_panel():
    figure = example_predictions_figure(["a.avi"], [30.0], [35.0])
    (panel,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["prediction", "reference"]
    assert panel.get_xlim() == (0, 100)


@pytest.mark.parametrize("names", [[], ["a.avi", "b.avi"]])
def test_values_that_do_not_belong_together(names):
    with pytest.raises(ValueError, match="Every video needs a name, a reference and a prediction: got"):
        example_predictions_figure(names, [30.0], [35.0])
