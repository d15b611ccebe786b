"""Data fidelities `D(K u, y)`: how a reconstruction has to explain its measurement."""

from deq_keras import config as _config
from deq_keras.fidelities.base import Fidelity
from deq_keras.fidelities.huber import Huber
from deq_keras.fidelities.least_squares import LeastSquares
from deq_keras.fidelities.poisson import Poisson
from deq_keras.fidelities.weighted_least_squares import WeightedLeastSquares

__all__ = [
    "Fidelity",
    "Huber",
    "LeastSquares",
    "Poisson",
    "WeightedLeastSquares",
    "get",
]

_BY_NAME = {"huber": Huber, "least_squares": LeastSquares, "poisson": Poisson}


def get(identifier):
    """A `Fidelity` from a name, a configuration or a fidelity.

    The names: `"least_squares"`, `"huber"` (with the threshold 0.1) and `"poisson"` (with the
    background 1). `WeightedLeastSquares` needs its weights, so it has no name.

    Raises:
        ValueError: If the name is unknown, with the nearest known one.
        TypeError: If the identifier is of another type.

    Example:

    >>> deq_keras.fidelities.get("huber")
    Huber(threshold=0.1)
    """
    return _config.get(identifier, "fidelity", _BY_NAME, Fidelity)
