"""Rounding errors of energies: which differences a line search may trust."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Rounding(NamedTuple):
    """What an image knows of the rounding of its energies; `(batch,)` each.

    How much the terms of an energy cancel is not known beforehand. The estimate starts from the
    largest energy seen and is raised whenever a search fails that should not.
    """

    size: tf.Tensor  # largest |E|
    factor: tf.Tensor  # times the machine epsilon

    @classmethod
    def start(cls, energy, factor):
        """The first estimate: `factor` roundings of the energy."""
        return cls(tf.abs(energy), factor * tf.ones_like(energy))

    def level(self):
        """The difference of energies below which they count as equal."""
        eps = float(np.finfo(self.size.dtype.as_numpy_dtype).eps)
        return tf.minimum(self.factor * eps, eps**0.5) * self.size

    def update(self, energy, failed):
        """After another accepted energy, or a search that failed."""
        limit = 1.0 / float(np.finfo(energy.dtype.as_numpy_dtype).eps)
        raised = tf.minimum(16.0 * self.factor, limit)
        factor = tf.where(failed, raised, self.factor)
        return Rounding(tf.maximum(self.size, tf.abs(energy)), factor)
