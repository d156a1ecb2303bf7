"""Training of both stages."""

from .arguments import EchoMENTrainingArguments, ModelArguments
from .data_arguments import DataArguments, SimulationArguments
from .fitting import fit, fit_stage
from .trainer import EchoMENTrainer


__all__ = [
    "DataArguments",
    "EchoMENTrainer",
    "EchoMENTrainingArguments",
    "ModelArguments",
    "SimulationArguments",
    "fit",
    "fit_stage",
]
