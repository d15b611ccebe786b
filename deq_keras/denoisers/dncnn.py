"""Convolutions one after the other: a residual denoiser, and one that cannot expand."""

import keras

from deq_keras.checks import positive_int
from deq_keras.layers.averaged import Averaged
from deq_keras.layers.convolutions import Conv2D
from deq_keras.layers.normalized_convolution import NormalizedConv2D


def dncnn(
    channels: int = 1,
    depth: int = 8,
    filters: int = 32,
    activation="relu",
    dtype: str | None = None,
) -> keras.Model:
    """A denoiser `D(u) = u - N(u)` with 3 x 3 convolutions one after the other, without biases.

    Args:
        channels: Of the images.
        depth: Number of convolutions, two or more.
        filters: Number of channels between them.
        activation: A Keras activation; a smooth one, such as `"elu"`, if it is to be differentiated
            twice, as `deq_keras.priors.DenoiserEnergy` does.
        dtype: Of its weights and images; `None`: Keras's default.

    Returns:
        A Keras model from images `(batch, height, width, channels)` to images. Nothing is certified
        of it: in `Equilibrium(ProximalStep(operator, denoiser))` it may expand.

    Raises:
        ValueError: If a number is too small.

    Reference:
        Zhang, Zuo, Chen, Meng and Zhang, Beyond a Gaussian denoiser: residual learning of deep CNN
        for image denoising, IEEE TIP 2017. Batch normalisation and biases are left out.

    Example:

    >>> denoiser = deq_keras.denoisers.dncnn(depth=3, filters=8)
    >>> denoiser(tf.random.uniform((2, 16, 18, 1))).shape
    TensorShape([2, 16, 18, 1])
    """
    widths = _widths(channels, depth, filters)
    images = keras.dtype_policies.get(dtype or keras.config.dtype_policy()).compute_dtype
    inputs = keras.Input((None, None, channels), dtype=images)
    options = {"padding": "same", "use_bias": False, "dtype": dtype}
    x = inputs
    for count in widths:
        x = Conv2D(count, 3, activation=activation, **options)(x)
    noise = Conv2D(channels, 3, **options)(x)
    return keras.Model(inputs, keras.layers.Subtract(dtype=dtype)([inputs, noise]), name="dncnn")


def averaged_dncnn(
    channels: int = 1,
    depth: int = 8,
    filters: int = 32,
    activation="relu",
    share: float = 0.5,
    dtype: str | None = None,
) -> Averaged:
    """A denoiser `D = (1 - share) Id + share T` with a `T` that is certified not to expand.

    `T` is a sequence of `deq_keras.layers.NormalizedConv2D` with norms of at most one. `D` is
    averaged, so plug-and-play with it converges where there is a fixed point, and contracts with a
    certified factor where the data fidelity is strongly convex: `Equilibrium(ProximalStep(operator,
    denoiser))` finds this out by itself, for the weights of each moment.

    Args:
        channels: Of the images.
        depth: Number of convolutions, two or more.
        filters: Number of channels between them.
        activation: A Keras activation of known slope <= 1: see `NormalizedConv2D.lipschitz`.
        share: Of `T`, in (0, 1]; 1 for `T` itself.
        dtype: Of its weights and images; `None`: Keras's default.

    Returns:
        A `deq_keras.layers.Averaged`, a Keras layer from images `(batch, height, width, channels)`
        to images.

    Raises:
        ValueError: If a number is too small.

    Reference:
        Ryu, Liu, Wang, Chen, Wang and Yin, Plug-and-play methods provably converge with properly
        trained denoisers, ICML 2019; Hertrich, Neumayer and Steidl, Convolutional proximal neural
        networks and plug-and-play algorithms, Linear Algebra and its Applications 2021.

    Example:

    >>> denoiser = deq_keras.denoisers.averaged_dncnn(depth=3, filters=8)
    >>> cell = deq_keras.layers.ProximalStep(deq_keras.operators.Identity(), denoiser, 0.5)
    >>> y = tf.random.uniform((2, 16, 18, 1))
    >>> deq_keras.layers.Equilibrium(cell).solve(y).converged.numpy()
    array([ True,  True])
    """
    widths = _widths(channels, depth, filters)
    hidden = [NormalizedConv2D(count, 3, activation=activation, dtype=dtype) for count in widths]
    last = NormalizedConv2D(channels, 3, dtype=dtype)
    return Averaged([*hidden, last], share, dtype=dtype, name="averaged_dncnn")


def _widths(channels, depth, filters):
    """The number of filters of each convolution but the last."""
    positive_int("channels", channels)
    if positive_int("depth", depth) < 2:
        raise ValueError(f"Expected `depth` to be an integer >= 2. Received depth={depth!r}.")
    return [positive_int("filters", filters)] * (depth - 1)
