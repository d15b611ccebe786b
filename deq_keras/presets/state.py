"""A state dictionary of PyTorch, of which every tensor is taken, once."""

from collections.abc import Mapping

import numpy as np


class State:
    """The tensors of a model by their published names, as float64 arrays.

    Args:
        model: What it is, for messages.
        tensors: Mapping from names to arrays.
        ignored: Endings of names that are left out.

    Raises:
        ValueError: If `tensors` is no mapping.
    """

    def __init__(self, model: str, tensors: Mapping, ignored: tuple[str, ...] = ()):
        self.model = model
        if not isinstance(tensors, Mapping):
            raise self.error(
                "a mapping from names to arrays, such as a state dictionary", type(tensors).__name__
            )
        self._rest = {
            name: np.asarray(value) for name, value in tensors.items() if not name.endswith(ignored)
        }

    def error(self, expected, received):
        """A `ValueError` that says what was expected of the tensors."""
        return ValueError(f"{self.model}: expected {expected}. Received {received}.")

    def numbered(self, pattern, first=0) -> list[str]:
        """The names `pattern.format(number)` that there are, for numbers from the first on."""
        names = []
        while (name := pattern.format(first + len(names))) in self._rest:
            names.append(name)
        return names

    def take(self, name, shape) -> np.ndarray:
        """One of the tensors.

        Args:
            name: Its name.
            shape: That it must have, `None` for a side of any length.

        Raises:
            ValueError: If it is not there, has another shape, or is not finite.
        """
        if name not in self._rest:
            raise self.error(f"a tensor {name!r}", f"none, but {sorted(self._rest)}")
        found = np.array(self._rest.pop(name), np.float64)
        if len(found.shape) != len(shape) or any(
            side not in (None, length) for side, length in zip(shape, found.shape, strict=True)
        ):
            sides = ", ".join("any" if side is None else str(side) for side in shape)
            raise self.error(f"{name!r} of shape ({sides})", f"{found.shape}")
        if not np.isfinite(found).all():
            raise self.error(f"finite numbers in {name!r}", "NaN or infinity")
        return found

    def finish(self):
        """Refuses what was not taken.

        Raises:
            ValueError: If there is something.
        """
        if self._rest:
            raise self.error("no other tensors than these", f"also {sorted(self._rest)}")
