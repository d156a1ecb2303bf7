"""Training of both stages."""

from .arguments import DataArguments, EchoMENTrainingArguments, ModelArguments
from .trainer import EchoMENTrainer
from .two_stage import fit, fit_stage


__all__ = ["DataArguments", "EchoMENTrainer", "EchoMENTrainingArguments", "ModelArguments", "fit", "fit_stage"]
