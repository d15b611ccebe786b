"""Published convex and weakly convex ridge regularisers from the weights of their authors."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from deq_keras import convolution
from deq_keras.checks import positive
from deq_keras.presets.state import State
from deq_keras.priors import SplineRidgeRegularizer

_LAYER = "conv_layer.conv_layers.{}"
_FREE = _LAYER + ".parametrizations.weight.original"  # what filters without mean are made of
_FIXED = _LAYER + ".weight"
_FREQUENCIES = 267  # a side, of the published estimate of a norm


def crr(tensors: Mapping, reach: float = 0.1, dtype: str | None = None) -> SplineRidgeRegularizer:
    """A convex ridge regulariser, CRR, for grey images.

    Its energy is the regulariser of the published denoiser, strength and scaling included: denoise
    with a weight of 1. Convolutions see zeros beyond the border of what they are applied to.

    Args:
        tensors: `conv_layer.conv_layers.{i}.parametrizations.weight.original`,
            `activation.coefficients_vect`, `lmbd` and `mu`; `L` is not used.
        reach: Of the knots, `knots_range` of the published configuration.
        dtype: Of the prior.

    Raises:
        ValueError: If a tensor is missing, has another shape, or is not among these.

    Reference:
        Goujon, Neumayer, Bohra, Ducotterd and Unser, A neural-network-based convex regularizer for
        inverse problems, IEEE TCI 2023.

    Example:

    >>> shapes = {"lmbd": (), "mu": (), "activation.coefficients_vect": (4 * 21,)}
    >>> layer = "conv_layer.conv_layers.{}.parametrizations.weight.original"
    >>> shapes |= {layer.format(0): (2, 1, 3, 3), layer.format(1): (4, 2, 3, 3)}
    >>> tensors = {name: np.random.uniform(size=shape) for name, shape in shapes.items()}
    >>> deq_keras.presets.pytorch.crr(tensors).filters
    (2, 4)
    """
    state = State("CRR", tensors, ("L",))
    layers = [_without_mean(layer) for layer in _layers(state, state.numbered(_FREE))]
    filters = layers[-1].shape[-1]
    values = state.take("activation.coefficients_vect", (None,))
    if values.size % filters or values.size // filters % 2 == 0:
        raise state.error(
            f"an odd number of knots for each of {filters} filters in activation.coefficients_vect",
            f"{values.size} numbers",
        )
    slopes = _slopes(values.reshape(filters, -1), positive("reach", reach))
    strength = np.maximum(state.take("lmbd", ()), 1e-4)
    scaling = np.maximum(state.take("mu", ()), 0.01)
    state.finish()
    return _spline_ridge(
        layers, strength * scaling * slopes, 0.0, np.full(filters, scaling / reach), None, dtype
    )


def wcrr(
    tensors: Mapping,
    weak_convexity: float = 1.0,
    reach: float = 0.1,
    largest_noise: float = 30 / 255,
    dtype: str | None = None,
) -> SplineRidgeRegularizer:
    """A weakly convex ridge regulariser, WCRR, for grey images and a noise level for each.

    Denoise with a weight of 1. Convolutions see zeros beyond the border of what they are applied
    to. The published norm of the filters is an estimate that leaves borders out, and so is its
    modulus; `strong_convexity()` of the result is the certified one, which is further from zero.

    Args:
        tensors: `conv_layer.conv_layers.0.parametrizations.weight.original`,
            `conv_layer.conv_layers.{i}.weight`, `activation_cvx.coefficients`,
            `activation_ccv.coefficients`, `mu_` and `spline_scaling.coefficients`.
        weak_convexity: `rho_wcvx` of the published configuration, 0 for its convex model.
        reach: Of the knots, `x_max` of the published `spline_activation`.
        largest_noise: The last knot of the published `spline_scaling`, on [0, 1]; the first is 0.
        dtype: Of the prior.

    Raises:
        ValueError: If a tensor is missing, has another shape, or is not among these.

    Reference:
        Goujon, Neumayer and Unser, Learning weakly convex regularizers for convergent
        image-reconstruction algorithms, SIAM J. Imaging Sci. 2024.

    Example:

    >>> shapes = {"mu_": (), "spline_scaling.coefficients": (4, 11)}
    >>> shapes |= {f"activation_{part}.coefficients": (1, 101) for part in ("cvx", "ccv")}
    >>> layer = "conv_layer.conv_layers."
    >>> shapes |= {layer + "0.parametrizations.weight.original": (2, 1, 3, 3)}
    >>> shapes |= {layer + "1.weight": (4, 2, 3, 3)}
    >>> tensors = {name: np.random.uniform(size=shape) for name, shape in shapes.items()}
    >>> deq_keras.presets.pytorch.wcrr(tensors).takes_noise_level
    True
    """
    state = State("WCRR", tensors)
    weak_convexity = positive("weak_convexity", weak_convexity, zero=True)
    first, *others = _layers(state, [_FREE.format(0), *state.numbered(_FIXED, 1)])
    layers = [_without_mean(first), *others]
    layers[-1] = layers[-1] / _published_norm(layers)

    def part(name):
        values = state.take(f"activation_{name}.coefficients", (1, None))
        if values.size % 2 == 0:
            raise state.error(f"an odd number of knots in activation_{name}", f"{values.size}")
        slopes = np.minimum(_slopes(values, positive("reach", reach)), 1.0)
        return 0.5 * (slopes + slopes[:, ::-1])

    convex, concave = part("cvx"), part("ccv")
    if convex.shape != concave.shape:
        raise state.error("as many knots for both activations", f"{convex.size}, {concave.size}")
    slopes = np.exp(state.take("mu_", ())) * convex - weak_convexity * concave
    logarithm = state.take("spline_scaling.coefficients", (layers[-1].shape[-1], None)).T
    state.finish()
    levels = np.linspace(0.0, positive("largest_noise", largest_noise), len(logarithm))
    # Noise levels were in units of 1 / 255.
    scaling = np.exp(logarithm) / 255 / reach
    return _spline_ridge(layers, slopes, weak_convexity, scaling, tuple(levels.tolist()), dtype)


def _layers(state, names):
    """The filters of all layers, `(height, width, channels, filters)`."""
    found, channels, sides = [], 1, (None, None)
    for name in names:
        weight = state.take(name, (None, channels, *sides))
        channels, _, *sides = weight.shape
        found.append(weight.transpose(2, 3, 1, 0))
    return found


def _without_mean(filters):
    return filters - filters.mean(axis=(0, 1, 2), keepdims=True)


def _composed(layers):
    return functools.reduce(convolution.compose, layers)


def _published_norm(layers):
    """The square root of the largest of the sums over filters of their power spectra."""
    spectra = np.fft.rfft2(_composed(layers)[:, :, 0], (_FREQUENCIES,) * 2, axes=(0, 1))
    return np.sqrt(np.max(np.sum(np.abs(spectra) ** 2, axis=2))) or 1.0  # of filters that are 0


def _slopes(values, reach):
    """The slopes of monotone splines, constant beyond their second and last but one knots."""
    width = 2 * reach / (values.shape[1] - 1)
    slopes = np.maximum(np.diff(values, axis=1) / width, 0.0)
    slopes[:, [0, -1]] = 0.0
    return slopes


def _spline_ridge(layers, slopes, weak_convexity, scaling, noise_levels, dtype):
    """The prior whose potentials have these slopes, for filters as they are.

    It divides its filters by their certified norm, which is multiplied onto the scalings and twice
    onto the slopes.
    """
    norm = float(convolution.composition_norm_bound([(layer, "zero") for layer in layers])) or 1.0
    slopes, weak_convexity = norm**2 * slopes, norm**2 * weak_convexity
    found = SplineRidgeRegularizer(
        tuple(layer.shape[3] for layer in layers),
        layers[0].shape[:2],
        weak_convexity,
        slopes.shape[1] + 1,
        shared=len(slopes) == 1,
        even=len(slopes) == 1,
        noise_levels=noise_levels,
        max_sharpness=None,
        padding="zero",
        cut_layers=True,
        dtype=dtype,
    )
    found.build((None, None, None, 1))
    for weight, layer in zip(found.convolutions, layers, strict=True):
        weight.assign(layer)
    found.slopes.assign(slopes[:, slopes.shape[1] // 2 :] if found.even else slopes)
    found.log_scaling.assign(np.log(norm * scaling))
    return found
