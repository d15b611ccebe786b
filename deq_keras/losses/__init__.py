"""Losses: without clean images, of critics, and the mean PSNR; models trained by the first two."""

from deq_keras import config as _config
from deq_keras.losses.adversarial import Adversarial
from deq_keras.losses.base import MeasurementLoss
from deq_keras.losses.negative_psnr import NegativePSNR
from deq_keras.losses.noise2noise import Noise2Noise
from deq_keras.losses.recorrupted import Recorrupted
from deq_keras.losses.self_supervised import SelfSupervised
from deq_keras.losses.sure import SURE

__all__ = [
    "SURE",
    "Adversarial",
    "MeasurementLoss",
    "NegativePSNR",
    "Noise2Noise",
    "Recorrupted",
    "SelfSupervised",
    "get",
]

_BY_NAME = {"noise2noise": Noise2Noise, "r2r": Recorrupted, "sure": SURE}


def get(identifier, **arguments) -> MeasurementLoss:
    """A `MeasurementLoss` from a name, a configuration or a loss.

    Args:
        identifier: `"sure"`, `"r2r"`, `"noise2noise"`, a configuration or a loss.
        **arguments: Those of the class, with a name.

    Example:

    >>> deq_keras.losses.get("sure", noise_level=0.1).noise_level
    0.1
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier](**arguments)
    return _config.get(identifier, "loss", _BY_NAME, MeasurementLoss)
