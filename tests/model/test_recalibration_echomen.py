import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from echomen_hf import EchoMENConfig, EchoMENModel
from echomen_hf.model.recalibration_echomen import check_recalibration, recalibrate


CURVE = {"predicted": [20.0, 50.0, 60.0], "corrected": [30.0, 45.0, 65.0]}


def test_is_linear_between_points_and_constant_beyond_them():
    values = torch.tensor([[0.0, 20.0, 35.0], [50.0, 55.0, 99.0]])
    expected = torch.tensor([[30.0, 30.0, 37.5], [45.0, 55.0, 65.0]])
    torch.testing.assert_close(recalibrate(values, CURVE), expected)


def test_nan_stays_nan_and_no_curve_changes_nothing():
    values = torch.tensor([torch.nan, 50.0])
    assert recalibrate(values, None) is values
    assert recalibrate(values, CURVE).isnan().tolist() == [True, False]


def test_gradient_is_the_slope():
    values = torch.tensor([35.0, 55.0], requires_grad=True)
    recalibrate(values, CURVE).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.5, 2.0]))


@pytest.mark.parametrize(
    "curve",
    [
        {},
        {"predicted": [0.0, 1.0]},
        {"predicted": [0.0], "corrected": [0.0]},
        {"predicted": [0.0, 1.0], "corrected": [0.0]},
        {"predicted": [1.0, 1.0], "corrected": [0.0, 1.0]},
        {"predicted": [0.0, 1.0], "corrected": [2.0, 1.0]},
        {"predicted": [0.0, "1"], "corrected": [0.0, 1.0]},
        {"predicted": [0.0, float("nan")], "corrected": [0.0, 1.0]},
        {"predicted": 3, "corrected": 3},
    ],
)
def test_what_is_no_rising_curve_is_refused(curve):
    with pytest.raises(ValueError, match="`recalibration` must hold two lists"):
        check_recalibration(curve)
    with pytest.raises(StrictDataclassClassValidationError, match="`recalibration` must hold two lists"):
        EchoMENConfig(recalibration=curve)


@pytest.mark.parametrize("prediction_head", ["experts", "regression"])
def test_model_corrects_all_its_ejection_fractions_and_keeps_the_curve(tiny_model, tmp_path, prediction_head):
    tiny_model.config.prediction_head = prediction_head
    embedding = torch.randn(5, 8) * 300
    raw = tiny_model(embedding=embedding)
    tiny_model.config.recalibration = CURVE
    tiny_model.save_pretrained(tmp_path)
    found = EchoMENModel.from_pretrained(tmp_path).eval()(embedding=embedding)
    assert raw.logits.std() > 1
    for name in ("logits", "regression", "expert_predictions"):
        torch.testing.assert_close(getattr(found, name), recalibrate(getattr(raw, name), CURVE))
    assert torch.equal(found.expert_weights, raw.expert_weights)
