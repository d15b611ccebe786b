"""Initial filters of fields of experts, of shape `(height, width, channels, filters)`."""

import keras
import numpy as np

from deq_keras import checks


class _Filters(keras.initializers.Initializer):
    """Leading filters made by `_leading`, the others small cosines that break the symmetry.

    An even potential has a zero derivative with respect to a filter that is zero, so a filter that
    starts at zero would stay there.
    """

    remainder = 0.1

    def _leading(self, height, width, channels):
        raise NotImplementedError

    def __call__(self, shape, dtype=None):
        height, width, channels, count = shape
        if height < 2 or width < 2:
            raise ValueError(
                f"{type(self).__name__} needs filters of at least 2 x 2 pixels. Received {shape}."
            )
        filters = np.zeros((height, width, channels, count))
        leading = self._leading(height, width, channels)[..., :count]
        filters[..., : leading.shape[-1]] = leading
        rest = count - leading.shape[-1]
        if rest:
            filters[..., leading.shape[-1] :] = self.remainder * dct_atoms(
                height, width, channels, rest
            )
        return keras.ops.cast(filters, dtype or keras.config.floatx())

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable(package="deq_keras")
class FirstOrder(_Filters):
    """Forward differences `[-1, 1]` along both axes in each channel: total variation's filters.

    Example:

    >>> filters = deq_keras.priors.initializers.FirstOrder()((2, 2, 1, 2))
    >>> filters[:, :, 0, 0].numpy()
    array([[-1.,  1.],
           [ 0.,  0.]], dtype=float32)
    """

    def _leading(self, height, width, channels):
        filters = np.zeros((height, width, channels, 2 * channels))
        i, j = (height - 1) // 2, (width - 1) // 2
        for c in range(channels):
            filters[i, j, c, 2 * c : 2 * c + 2] = -1.0
            filters[i, j + 1, c, 2 * c] = 1.0
            filters[i + 1, j, c, 2 * c + 1] = 1.0
        return filters


@keras.saving.register_keras_serializable(package="deq_keras")
class SecondOrder(_Filters):
    """Second differences `[1, -2, 1]` along both axes in each channel.

    Example:

    >>> filters = deq_keras.priors.initializers.SecondOrder()((3, 3, 1, 2))
    >>> filters[1, :, 0, 0].numpy()
    array([ 1., -2.,  1.], dtype=float32)
    """

    def _leading(self, height, width, channels):
        if height < 3 or width < 3:
            raise ValueError(
                f"SecondOrder needs filters of at least 3 x 3 pixels. Received {height} x {width}."
            )
        filters = np.zeros((height, width, channels, 2 * channels))
        i, j = height // 2, width // 2
        for c in range(channels):
            filters[i, j, c, 2 * c : 2 * c + 2] = -2.0
            filters[i, j - 1, c, 2 * c] = filters[i, j + 1, c, 2 * c] = 1.0
            filters[i - 1, j, c, 2 * c + 1] = filters[i + 1, j, c, 2 * c + 1] = 1.0
        return filters


@keras.saving.register_keras_serializable(package="deq_keras")
class DCT(_Filters):
    """The discrete cosine transform without its constant atom, low frequencies first.

    The spectra of natural images fall like the inverse of the frequency, so a prior for them should
    weigh a response by its frequency: atom `(k, m)` is multiplied by `sqrt(k^2 + m^2)^exponent`.

    Args:
        exponent: 0 for the orthonormal atoms.

    Reference:
        Field, Relations between the statistics of natural images and the response properties of
        cortical cells, J. Opt. Soc. Am. A 1987.

    Example:

    >>> filters = deq_keras.priors.initializers.DCT()((5, 5, 1, 24))
    >>> np.allclose(tf.reduce_mean(filters, axis=(0, 1)), 0.0, atol=1e-6)
    True
    """

    def __init__(self, exponent=1.0):
        self.exponent = float(exponent)

    def _leading(self, height, width, channels):
        count = channels * (height * width - 1)
        frequency = [np.hypot(k, m) for k, m in _frequencies(height, width)]
        weights = np.repeat(frequency, channels) ** self.exponent
        return dct_atoms(height, width, channels, count) * weights

    def get_config(self):
        return {"exponent": self.exponent}


@keras.saving.register_keras_serializable(package="deq_keras")
class Random(keras.initializers.Initializer):
    """Normal random filters of zero mean, so that constant images cost nothing.

    Args:
        seed: Integer; the same seed gives the same filters.

    Example:

    >>> make = deq_keras.priors.initializers.Random(seed=3)
    >>> np.array_equal(make((5, 5, 1, 24)), make((5, 5, 1, 24)))
    True
    """

    def __init__(self, seed=0):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        filters = np.random.default_rng(self.seed).normal(size=shape)
        filters -= filters.mean(axis=(0, 1), keepdims=True)
        return keras.ops.cast(filters, dtype or keras.config.floatx())

    def get_config(self):
        return {"seed": self.seed}


def dct_atoms(height, width, channels, count):
    """`count` orthonormal cosine filters, low frequencies first, cycling through the channels.

    More than `channels (height width - 1)` of them start again with the first.

    Example:

    >>> atoms = deq_keras.priors.initializers.dct_atoms(3, 3, channels=1, count=8).reshape(9, 8)
    >>> np.allclose(atoms.T @ atoms, np.eye(8))
    True
    """

    def basis(n):
        k, x = np.arange(n)[:, None], np.arange(n)[None]
        atoms = np.cos(np.pi * k * (2 * x + 1) / (2 * n))
        return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)

    rows, columns = basis(height), basis(width)
    order = _frequencies(height, width)
    filters = np.zeros((height, width, channels, count))
    for index in range(count):
        k, m = order[(index // channels) % len(order)]
        filters[:, :, index % channels, index] = np.outer(rows[k], columns[m])
    return filters


def _frequencies(height, width):
    """The pairs of frequencies of all atoms but the constant one, in the order of `dct_atoms`."""
    pairs = ((k, m) for k in range(height) for m in range(width) if k + m)
    return sorted(pairs, key=lambda pair: (sum(pair), pair))


_BY_NAME = {
    "first_order": FirstOrder,
    "second_order": SecondOrder,
    "dct": DCT,
    "random": Random,
}


def get(identifier):
    """An initializer from one of our names, or whatever `keras.initializers.get` accepts.

    Example:

    >>> type(deq_keras.priors.initializers.get("first_order")).__name__
    'FirstOrder'
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    try:
        found = keras.initializers.get(identifier)
    except ValueError:
        found = None
    if found is None:
        known = [*_BY_NAME, "he_normal", "glorot_uniform", "orthogonal"]
        raise checks.unknown_name_error("initializer", identifier, known)
    return found
