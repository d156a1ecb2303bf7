import math

import numpy as np
import pytest

from echomen_hf.methods.losses.lds import gaussian_kernel, lds_weights


def test_kernel_worked_by_hand():
    shape = np.array([math.exp(-0.5), math.exp(-0.125), 1, math.exp(-0.125), math.exp(-0.5)])
    np.testing.assert_allclose(gaussian_kernel(5, 2.0), shape / shape.sum())


def test_weights_worked_by_hand():
    # Counts 4 in bin 50 and 1 in bin 51: roots 2 and 1. Neighbours count with e^(-1/8) of the kernel's centre.
    labels = np.array([50.0, 50.1, 50.2, 50.3, 51.5])
    near = math.exp(-0.125)
    effective = {50: 2 + near * 1, 51: 1 + near * 2}
    inverse = np.array([1 / effective[50]] * 4 + [1 / effective[51]])
    np.testing.assert_allclose(lds_weights(labels)(labels)[:, 0], inverse / inverse.mean(), rtol=1e-12)


def test_kernel_is_cut_off_at_the_ends_of_the_range():
    # Bin 0 has no neighbours below it; nothing is reflected into it.
    labels = np.array([0.5, 1.5, 50.5])
    near = math.exp(-0.125)
    inverse = np.array([1 / (1 + near), 1 / (1 + near), 1.0])
    np.testing.assert_allclose(lds_weights(labels)(labels)[:, 0], inverse / inverse.mean(), rtol=1e-12)


def test_a_kernel_of_one_bin_is_sqinv():
    from echomen_hf.methods.losses.sqinv import sqrt_inverse_weights

    labels = np.random.default_rng(0).normal(55, 12, 500).clip(0, 100)
    np.testing.assert_allclose(lds_weights(labels, kernel_size=1)(labels), sqrt_inverse_weights(labels)(labels))


def test_empty_bins_beside_frequent_ones_are_not_rare():
    labels = np.concatenate([np.full(100, 60.5), np.full(100, 62.5), [20.5]])
    weights = lds_weights(labels)(np.array([60.5, 61.5, 20.5]))[:, 0]
    assert weights[1] < weights[0] < weights[2]


def test_labels_far_from_all_training_labels_have_a_finite_weight():
    weights = lds_weights(np.array([50.0, 51.0]))(np.array([0.0, 100.0]))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("size", [0, 4])
def test_kernel_of_no_centre(size):
    with pytest.raises(ValueError, match="odd and positive"):
        gaussian_kernel(size, 2.0)


def test_kernel_without_width():
    with pytest.raises(ValueError, match="sigma"):
        gaussian_kernel(5, 0.0)
