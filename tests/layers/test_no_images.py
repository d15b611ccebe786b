"""A batch of no images: a replica gets none of the last batch when there are too few."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, denoisers, fidelities, layers, metrics, operators, priors, solvers
from tests.variants import covering

IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 9, 1)), tf.float32)
NONE = IMAGES[:0]
QUICK = {"solver": solvers.Picard(max_steps=3), "adjoint": "jacobian_free"}


def _foe(**kwargs):
    return priors.FieldsOfExperts(2, 3, **kwargs)


class OwnCell(keras.layers.Layer):
    """Keras's own convolutions, which fail for no images in a graph."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Conv2D(3, 3, padding="same", activation="tanh")
        self.second = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros")

    def call(self, z, y):
        return y + self.second(self.first(z))


def _derivatives(function, variables):
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            result = function(*tensors)
            loss = tf.reduce_sum(tf.abs(result))
        sources = [*tensors, *variables]
        return result, tape.gradient(loss, sources, unconnected_gradients="zero")

    return run


def _check(function, inputs, variables, modes=("eager", "graph")):
    """Forward and backward for a batch of none, with a known number of images and without."""
    run = _derivatives(function, variables)
    spec = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in inputs]
    graph = tf.function(run, input_signature=spec, autograph=False)
    for mode in modes:
        none = [part[:0] for part in inputs]
        result, gradients = (run if mode == "eager" else graph)(*none)
        assert result.shape[0] == 0
        for part, gradient in zip([*none, *variables], gradients, strict=True):
            assert gradient.shape == part.shape
            assert not np.any(gradient)  # nor NaN
    return graph


PADDED = [
    operators.GaussianBlur(3, 0.6, padding=padding, method=method, trainable=True)
    for padding in ("zero", "circular", "reflect")
    for method in ("direct", "fft")
]
OPERATORS = [
    operators.Identity(),
    *PADDED,
    operators.Downsample(2),
    operators.Mask(np.ones((8, 9, 1))),
    operators.FourierMask(np.ones((8, 9))),
    2.0 * operators.Downsample(2) @ PADDED[0],
    PADDED[0] - PADDED[2],
]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_operators(operator):
    _check(operator, [IMAGES], operator.trainable_variables)
    size = (0, 8, 9, 1)
    for v in (operator(NONE), operator(IMAGES)[:0]):
        assert operator.adjoint(v, image_shape=size).shape == size
    assert tf.function(operator, autograph=False)(NONE).shape == operator(NONE).shape


@pytest.mark.parametrize("padding", ["reflect", "circular", "zero", "valid"])
def test_priors(padding):
    prior = _foe(padding=padding)
    prior.build((None, None, None, 1))
    weights = prior.trainable_variables
    _check(prior.gradient, [IMAGES], weights)
    _check(prior.energy, [IMAGES], weights)


def test_other_priors_metrics_fidelities_and_noise():
    ridge = priors.RidgeRegularizer()
    ridge.build((None, None, None, 1))
    network = priors.DenoiserEnergy(denoisers.dncnn(depth=2, filters=2))
    for prior in (ridge, network, priors.TotalVariation()):
        assert prior.gradient(NONE).shape == NONE.shape
        assert prior.energy(NONE).shape == (0,)
    signature = [tf.TensorSpec((None, None, None, 1))]
    for prior in (priors.InputConvexNetwork(), priors.TotalDeepVariation()):
        prior.build((None, None, None, 1))
        energies = tf.function(prior.energy, input_signature=signature, autograph=False)
        assert energies(NONE).shape == (0,)
        np.testing.assert_allclose(energies(IMAGES), prior.energy(IMAGES), rtol=1e-5)
    assert metrics.psnr(NONE, NONE).shape == (0,)
    assert metrics.ssim(NONE, NONE, filter_size=7).shape == (0,)
    for metric in (metrics.PSNR(), metrics.SSIM(filter_size=7)):
        metric.update_state(NONE, NONE)
        assert float(metric.result()) == 0.0  # as Keras's own
        metric.update_state(IMAGES, IMAGES + 0.1)
        assert float(metric.result()) > 0
    for name in ("least_squares", "huber", "poisson"):
        assert fidelities.get(name).value(NONE, NONE).shape == (0,)
    assert operators.gaussian_noise(NONE, 0.1, 0, 0).shape == NONE.shape
    assert operators.poisson_noise(NONE, 30.0, 0, 0).shape == NONE.shape


def _solved(layer, inputs):
    layer.build(tf.nest.map_structure(lambda part: (None, *part.shape[1:]), inputs))
    together = tf.nest.flatten(inputs)

    def call(*parts):
        return layer(tf.nest.pack_sequence_as(inputs, parts), training=True)

    graph = _check(call, together, layer.trainable_variables, ("graph",))
    assert all(np.isnan(metric.result()) for metric in layer.metrics)  # nothing was measured
    some, eager = graph(*together)[0], call(*together)
    np.testing.assert_allclose(some, eager, rtol=1e-3, atol=1e-4)
    solution = layer.solve(tf.nest.map_structure(lambda part: part[:0], inputs))
    assert solution.residual.shape == solution.steps.shape == (0,)
    assert layer(tf.nest.map_structure(lambda part: part[:0], inputs)).shape[0] == 0


def test_a_variational_layer_with_mirrored_boundaries():
    prior = _foe(padding="reflect")
    _solved(layers.Variational(PADDED[4], prior, 0.3, solver=QUICK["solver"]), IMAGES)


def test_an_equilibrium_of_a_cell_of_convolutions():
    _solved(layers.Equilibrium(OwnCell(), jacobian_regularizer="jacobian_frobenius"), IMAGES)


SOLVERS = {
    "energy": ("anderson", "broyden", "lbfgs", "nesterov", "newton_krylov", "nonmonotone_apg"),
    "map": ("anderson", "broyden", "picard", "plain_anderson", "newton_krylov"),
}
SOLVES = ("anderson", "bicgstab", "conjugate_gradient", "gmres", "minres", "neumann")
ADJOINTS = {
    "unrolled": adjoints.Unrolled(2),
    "recomputed": adjoints.Unrolled(2, recompute=True),
    "jacobian_free": adjoints.JacobianFree(),
    "phantom": adjoints.Phantom(),
    "truncated_neumann": adjoints.TruncatedNeumann(),
    "shine": adjoints.SHINE(),
    "higher_order": adjoints.Implicit(higher_order=True),
    **{name: adjoints.Implicit(linear_solver=name) for name in SOLVES},
}
# SHINE needs an inverse Jacobian, which Broyden has; Newton's solves cannot be unrolled.
PAIRS = [
    (kind, solver, adjoint)
    for kind in SOLVERS
    for solver, adjoint in itertools.product(SOLVERS[kind], ADJOINTS)
    if (adjoint != "shine" or solver == "broyden")
    and not (adjoint in ("unrolled", "recomputed") and solver == "newton_krylov")
]


@pytest.mark.parametrize(("kind", "solver", "adjoint"), covering(PAIRS))
def test_solvers_and_adjoints(kind, solver, adjoint):
    parts = {"solver": solver, "adjoint": ADJOINTS[adjoint]}
    if kind == "energy":
        layer = layers.Variational(operators.Identity(), _foe(padding="circular"), 0.3, **parts)
    else:
        layer = layers.Equilibrium(OwnCell(), **parts)
    layer.build((None, 8, 9, 1))
    _check(lambda y: layer(y, training=True), [IMAGES], layer.trainable_variables, ("eager",))
    solution = layer.solve(NONE)
    assert solution.residual.shape == solution.steps.shape == (0,)


def test_data_beside_the_measurement():
    layer = layers.Variational(operators.Mask(), _foe(), constraint="non_negative", **QUICK)
    _solved(layer, (IMAGES, tf.ones_like(IMAGES)))


def test_keras_fits_evaluates_and_predicts_where_a_replica_has_no_image():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    images = np.random.default_rng(1).uniform(size=(3, 8, 9, 1)).astype("float32")
    with strategy.scope():
        layer = layers.Variational(operators.Identity(), _foe(padding="zero"), **QUICK)
        model = keras.Sequential([keras.Input((8, 9, 1)), layer])
        model.compile("sgd", "mse", metrics=[metrics.PSNR()])
        model.optimizer.build(model.trainable_variables)  # or a step of `fit` is traced twice
    before = [np.array(weight) for weight in model.get_weights()]
    history = model.fit(images, images, batch_size=2, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    found = model.evaluate(images, images, batch_size=2, verbose=0, return_dict=True)
    assert np.isfinite([found["loss"], found["psnr"]]).all()
    found = model.predict(images, batch_size=2, verbose=0)
    np.testing.assert_allclose(found, layer(images), atol=1e-5)
