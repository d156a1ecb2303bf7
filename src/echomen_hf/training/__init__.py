"""Training of both stages."""

from .arguments import DataArguments, EchoMENTrainingArguments, ModelArguments, SimulationArguments
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
