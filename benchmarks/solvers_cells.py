"""The problems of the suite `solvers`, as cells of the library; see `solvers_grid`."""

import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from benchmarks import problems, solvers_grid, solvers_peers

_UNTIED = 0.3  # ||S - A|| / ||A||
_PERTURBED = 0.3  # of the filters, against the cosines that they start from


def cell(family, dtype):
    """The cell of a family in a precision; the weights are the same in both."""
    dtype = keras.DTypePolicy(dtype)
    shape = (family.batch, family.size, family.size, 1)
    operator, weight = _operator(family, dtype), solvers_grid.TASKS[family.task][1]
    if family.prior == "proximal network":
        made = dk.layers.ProximalStep(operator, _proximal(family.seed, dtype), dtype=dtype)
    elif family.prior == "gradient network":
        # The network has norm at most one, so with this weight the map is strongly monotone.
        prior = dk.priors.LearnedGradient(_network(family.seed, dtype), dtype=dtype)
        made = dk.layers.GradientStep(operator, prior, 0.9, dtype=dtype)
    else:
        made = dk.layers.GradientStep(operator, _prior(family, dtype), weight, dtype=dtype)
    made.ensure_built(shape, operator.measurement_shape(shape))
    if family.prior == "untied experts":
        kernel = made.prior.analysis.numpy()
        noise = np.random.default_rng(family.seed + 1).normal(size=kernel.shape)
        noise *= _UNTIED * np.linalg.norm(kernel) / np.linalg.norm(noise)
        made.prior.synthesis.assign(kernel + noise)
    return made


def set_sharpness(cell, sharpness):
    """Give all experts of a cell one sharpness; `None` leaves it as it is."""
    if sharpness is not None:
        variable = cell.prior.log_sharpness
        variable.assign(np.full(variable.shape, np.log(sharpness)))


def measurement(family):
    """`y` of photographs, float32: reduced crops, of which the operator and noise make it."""
    clean = problems.photographs(family.batch, None, 4 * family.size, 4 * family.size)
    shape = (family.batch, family.size, 4, family.size, 4, 1)
    clean = tf.constant(clean.reshape(shape).mean(axis=(2, 4)), tf.float64)
    exact = _operator(family, keras.DTypePolicy("float64"))(clean).numpy()
    noise = np.random.default_rng(family.seed + 2).normal(size=exact.shape)
    return (exact + solvers_grid.TASKS[family.task][0] * noise).astype(np.float32)


def experts(cell, y, truth):
    """The map of a cell of experts as arrays: a `solvers_peers.Experts`."""
    problem, c = cell.bind(y), cell.prior.coefficients(tuple(y.shape[1:3]))
    blurred = isinstance(cell.operator, dk.operators.Blur)
    return solvers_peers.Experts(
        filters=c.sharp.numpy(),
        synthesis=(tf.exp(cell.log_weight) * c.synthesis).numpy(),
        measurement=y.numpy(),
        step=float(problem.step.length),
        tied=cell.prior.tied,
        blur=cell.operator.kernel.numpy() if blurred else None,
        start=problem.initial_value.numpy(),
        truth=truth,
    )


def _operator(family, dtype):
    size = (family.size, family.size)
    if family.task == "deconvolution":
        return dk.operators.GaussianBlur(kernel_size=7, stddev=1.2, dtype=dtype)
    if family.task == "inpainting":
        mask = np.random.default_rng(family.seed + 3).random(size) < 0.5
        return dk.operators.Mask(mask.astype("float32"), dtype=dtype)
    if family.task == "super-resolution":
        return dk.operators.Downsample(2, image_size=size, dtype=dtype)
    return dk.operators.Identity(dtype=dtype)


def _prior(family, dtype):
    if family.prior == "total variation":
        return dk.priors.TotalVariation(dtype=dtype)
    kind = dk.priors.FieldsOfExperts
    if family.prior == "untied experts":
        kind = dk.priors.UntiedFieldsOfExperts

    def filters(shape, dtype=None):
        cosines = dk.priors.initializers.get("dct")(shape, "float64").numpy()
        noise = np.random.default_rng(family.seed).normal(size=shape)
        noise *= _PERTURBED * np.linalg.norm(cosines) / np.linalg.norm(noise)
        return tf.constant(cosines + noise, dtype)

    options = {"max_sharpness": None, "filters_initializer": filters, "dtype": dtype}
    return kind(family.filters, 5, **options)


def _network(seed, dtype):
    """Two convolutions with norms of one and a `tanh` between them, as a model of images."""

    def convolution(filters, seed, activation=None):
        def kernel(shape, dtype=None):
            drawn = np.random.default_rng(seed).normal(size=shape)
            return tf.constant(drawn / float(dk.convolution.norm_bound(drawn, "zero")), dtype)

        options = {"padding": "same", "activation": activation, "use_bias": False}
        options.update(kernel_initializer=kernel, dtype=dtype)
        return dk.layers.Conv2D(filters, 5, **options)

    x = keras.Input((None, None, 1), dtype=dtype.variable_dtype)
    hidden = convolution(16, seed, "tanh")(x)
    return keras.Model(x, convolution(1, seed + 1)(hidden))


def _proximal(seed, dtype):
    """`N(x) = 0.9 x + 0.09 M(x)` with a network `M` of norm at most one: a contraction by 0.99."""
    x = keras.Input((None, None, 1), dtype=dtype.variable_dtype)
    return keras.Model(x, 0.9 * x + 0.09 * _network(seed, dtype)(x))
