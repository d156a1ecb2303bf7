"""Training of both stages."""

from .arguments import DataArguments, EchoMENTrainingArguments, ModelArguments, SimulationArguments
from .trainer import EchoMENTrainer
from .two_stage import fit, fit_stage


__all__ = [
    "DataArguments",
    "EchoMENTrainer",
    "EchoMENTrainingArguments",
    "ModelArguments",
    "SimulationArguments",
    "fit",
    "fit_stage",
]
