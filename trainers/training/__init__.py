"""The training of a compiled Keras model, on one or many devices and machines."""

from trainers.training.options import Options
from trainers.training.trainer import Trainer

__all__ = ["Options", "Trainer"]
