"""Publishing a trained model on the Hub: its card, its files and a Space to try it in."""

from .imported_weights import import_weights
from .model_card import create_model_card
from .publishing import publish_folder
from .push_model import push_model
from .repository import listing, stage_repository
from .run_record import RunRecord, read_run
from .space import stage_space


__all__ = [
    "RunRecord",
    "create_model_card",
    "import_weights",
    "listing",
    "publish_folder",
    "push_model",
    "read_run",
    "stage_repository",
    "stage_space",
]
