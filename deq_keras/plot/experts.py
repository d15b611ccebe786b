"""What a prior has learned: its filters, and what it does to their responses."""

import numpy as np
import tensorflow as tf

from deq_keras.plot import figure as figures
from deq_keras.plot import pictures as arrays
from deq_keras.priors import Prior

_INCHES = 3.4  # of a panel's side
_MOST = 64  # curves; more cannot be told apart


def filters(prior, most=64):
    """The filters of a prior, the greatest first, each on a symmetric scale of its own.

    Blue is negative and red positive; of three channels grey is zero, and a colour what a filter
    adds to the channels. Of a prior with two sets of filters the same place is the same expert.

    Args:
        prior: A built `deq_keras.priors.Prior`, or a dictionary from a title to an array
            `(filters, height, width, channels)`, as `Prior.pictures` returns it.
        most: How many filters are shown of each.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the prior is not built, or has nothing to show.

    Example:

    >>> figure = deq_keras.plot.filters(deq_keras.presets.load("untied_foe_bsd400"))
    >>> [axes.get_title() for axes in figure.axes]
    ['analysis', 'synthesis']
    """
    kernels = _pictures(prior)
    figure = figures.new(_INCHES * len(kernels) + 0.1, _INCHES + 0.3)
    order = None
    for axis, (title, kernel) in zip(
        figure.subplots(1, len(kernels), squeeze=False)[0], kernels.items(), strict=True
    ):
        kernel = np.transpose(np.asarray(kernel), [1, 2, 3, 0])
        if order is None or len(order) != kernel.shape[-1]:
            order = np.argsort(-arrays.filter_norms(kernel), kind="stable")[:most]
        tiles = arrays.filter_tiles(kernel, order)
        if tiles.shape[-1] == 3:  # where there is no tile, white
            axis.imshow(np.where(np.isnan(tiles), 1.0, 0.5 + 0.5 * tiles))
        else:
            axis.imshow(tiles[..., 0], cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        axis.set_axis_off()
        figures.title(axis, title)
    return figure


def _pictures(prior):
    if not isinstance(prior, Prior):
        kernels = dict(prior)
    elif not prior.built:
        raise ValueError(f"Expected a prior that was built. Received {prior!r}.")
    else:
        kernels = prior.pictures()
    if not kernels:
        raise ValueError(f"{prior!r} has no filters to show: its `pictures()` are empty.")
    return kernels


def potentials(prior, largest=0.5, noise_level=None):
    """The functions that a prior applies to responses of its filters: potentials and activations.

    Args:
        prior: A built `deq_keras.priors.Prior` with `curves`, such as fields of experts.
        largest: Responses from `-largest` to `largest` are shown.
        noise_level: A standard deviation, of a prior that takes one.

    Returns:
        A `matplotlib.figure.Figure`: a panel for each kind of function, a line for each expert.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the prior is not built or applies no such functions.

    Example:

    >>> figure = deq_keras.plot.potentials(deq_keras.presets.load("wcrr_bsd400"))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['potential', 'activation']
    """
    if not prior.built:
        raise ValueError(f"Expected a prior that was built. Received {prior!r}.")
    responses = np.linspace(-largest, largest, 401)
    level = () if noise_level is None else (tf.constant([noise_level], prior.variable_dtype),)
    curves = prior.curves(tf.constant(responses, prior.variable_dtype), *level)
    if not curves:
        raise ValueError(f"{prior!r} applies no functions of one response: it has no `curves`.")
    figure = figures.new(_INCHES * len(curves) + 0.2, 0.75 * _INCHES)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (title, values) in zip(axes, curves.items(), strict=True):
        for line in np.asarray(values)[:_MOST]:
            axis.plot(responses, line, linewidth=0.8, alpha=0.6)
        figures.label(axis, "response of a filter", title)
    return figure
