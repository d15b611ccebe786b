"""A model that answers the signature `diagnose`, wherever it runs."""

import abc
from typing import NamedTuple

import numpy as np

from experiments.restoration.errors import Refused
from trainers.process.errors import ConfigurationError

_EXTRA = ("tolerance", "max_steps")


class Spec(NamedTuple):
    """A tensor that goes in: NumPy's name of its type, and its shape, None where any size is taken.

    The first axis is the batch.
    """

    dtype: str
    shape: tuple


class Answer(NamedTuple):
    """What comes out, a row for each image; the fields are those of the signature `diagnose`."""

    reconstruction: np.ndarray
    steps: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    error_bound: np.ndarray
    certified: np.ndarray


class Model(abc.ABC):
    """A model that can be asked for reconstructions.

    Attributes:
        inputs: A dict from the names of the inputs of `diagnose` to a `Spec`.
        where: For people: the folder, or the server and its protocol.
    """

    inputs: dict
    where: str

    @abc.abstractmethod
    def infer(self, tensors):
        """One request.

        Args:
            tensors: A dict from the names of inputs to arrays of their types.

        Returns:
            A dict from the names of outputs to arrays.

        Raises:
            Refused: The model, or the server, does not take this request.
            TooLarge: It is too large.
            Unavailable: The server is not there, after retries.
        """

    @property
    def channels(self):
        """1 or 3, or None if the measurement is complex or has another number of channels."""
        spec = self.inputs["measurement"]
        channels = spec.shape[-1] if len(spec.shape) == 4 else None
        return channels if channels in (1, 3) and not self.is_complex else None

    @property
    def is_complex(self):
        """Whether the measurement is complex: Fourier coefficients."""
        return np.dtype(self.inputs["measurement"].dtype).kind == "c"

    @property
    def data(self):
        """The names of what the operator needs for each image: `data`, `data_1`..."""
        return sorted(name for name in self.inputs if name not in ("measurement", *_EXTRA))

    def diagnose(self, measurement, data, tolerance=0.0, max_steps=0):
        """Reconstructions and how the solver got there.

        Args:
            measurement: A batch, `(batch, height, width, channels)`.
            data: A dict from `data`, `data_1`... to arrays with the same batch.
            tolerance: The residual to reach; 0 or less: the model's own.
            max_steps: The most steps; 0 or less: the model's own.

        Returns:
            An `Answer`.

        Raises:
            Refused: As `infer`, or a number of the answer is not finite.
        """
        batch = len(measurement)
        tensors = {"measurement": measurement, **data}
        tensors["tolerance"] = np.full(batch, tolerance)
        tensors["max_steps"] = np.full(batch, max_steps)
        found = self.infer({k: v.astype(self.inputs[k].dtype) for k, v in tensors.items()})
        missing = [name for name in Answer._fields if name not in found]
        if missing:
            raise Refused(f"Expected the outputs of `diagnose`. Missing: {', '.join(missing)}.")
        answer = Answer(*(np.asarray(found[name]) for name in Answer._fields))
        if not np.isfinite(answer.reconstruction).all():
            raise Refused("The reconstruction is not finite.")
        return answer


class ServerModel(Model):
    """A model of a server, by one of its protocols.

    A subclass names its `protocol`, and defines `_connect(address, patience)`, before which nothing
    is asked, `_metadata()`, the `Spec` of each input by its name or None, and `infer`.

    Args:
        address: `HOST:PORT`; for REST also an address with `http://` or `https://`, maybe with a
            path. gRPC is not encrypted.
        name: The model's name there.
        patience: A `Patience`: how long to wait, and whether to ask again.

    Raises:
        Unavailable: The server does not answer.
        Refused: It answers something else: no such model, another protocol.
        ConfigurationError: The model is not one of `diagnose`.
    """

    protocol = ""  # for people

    def __init__(self, address, name, patience):
        self.where = f"{name!r} at {address} ({self.protocol})"
        self._name = name
        self._connect(address, patience)
        self.inputs = check_signature(self._metadata(), self.where)

    @abc.abstractmethod
    def _connect(self, address, patience):
        """Keeps what calls the server."""

    @abc.abstractmethod
    def _metadata(self):
        """What goes into `diagnose`: a dict from names to `Spec`, or None."""


def free(sizes):
    """The sizes of a shape; where a server says by a negative number that any is taken, None."""
    return tuple(size if size >= 0 else None for size in map(int, sizes))


def check_signature(inputs, where):
    """The inputs of `diagnose`, if they are what this program can give.

    Args:
        inputs: A dict from names to `Spec`, or None if there is no such signature.
        where: For the message.

    Raises:
        ConfigurationError: If not.
    """
    if inputs is None or not {"measurement", *_EXTRA} <= set(inputs):
        there = "has none" if inputs is None else f"takes {sorted(inputs)}"
        raise ConfigurationError(
            "Expected a model with the signature `diagnose` of measurement, tolerance, max_steps, "
            f"as experiments.export writes it. The model {where} {there}. Export it anew."
        )
    return inputs
