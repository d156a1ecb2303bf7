"""EchoMEN, the rivals of the paper's Table 1, newer losses, and the ablations of Table 2, all trained in one way.

A method is a model class, a loss, a trainer and the defaults that make it what it is. Trainer, data, validation and
test protocol are the same for all, which is what makes a comparison fair: the encoders of two methods begin with the
same weights, see the same videos in the same order, and take the same number of optimiser steps (those of stage 1; a
stage 2 leaves the encoder as it is), or each as many as its publication says; the epoch to keep is chosen on VAL by
one metric for all. A method with two views reads the same clips, each in two crops.

The page `docs/adding_a_method.md` shows how to add one.
"""

from .fitting import fit_method, load_method_checkpoint
from .method import Method, MethodGroup, trained_parameter_count
from .method_trainer import MethodLoss, MethodTrainer
from .networks.architecture import ArchitectureTrainer, single_prediction
from .networks.configuration_uniformer import UniFormerConfig
from .networks.configuration_uvt import UVTConfig
from .registry import get_method, list_methods


__all__ = [
    "ArchitectureTrainer",
    "Method",
    "MethodGroup",
    "MethodLoss",
    "MethodTrainer",
    "UVTConfig",
    "UniFormerConfig",
    "fit_method",
    "get_method",
    "list_methods",
    "load_method_checkpoint",
    "single_prediction",
    "trained_parameter_count",
]
