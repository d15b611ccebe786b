"""Measurements of another shape than the image, complex or several, through the layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers, testing
from tests.variants import marked

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 9, 1)))
MASKS = tf.constant(np.random.default_rng(1).uniform(size=(2, 8, 9, 1)) < 0.6, DTYPE)


class Means(operators.LinearOperator):
    """The means of rows: one's own operator, of which nothing but a call is known."""

    def call(self, u, data=None):
        return tf.reduce_mean(u, axis=2)

    def image_shape(self, measurement_shape, data_shape=None):
        batch, height, channels = measurement_shape
        return (batch, height, 9, channels)


@keras.saving.register_keras_serializable(package="test_in_layers")
class Smooth(priors.Prior):
    """`s sum (u^2 / 2 + sqrt(1 + u^2))`: well conditioned wherever an operator sees nothing."""

    is_convex = True

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def energy(self, u):
        return self.scale * tf.reduce_sum(0.5 * u**2 + tf.sqrt(1.0 + u**2), axis=(1, 2, 3))

    def gradient_lipschitz(self, size=None):
        return 2.0 * tf.convert_to_tensor(self.scale)


def _stack(masks=False):
    blur = operators.GaussianBlur(3, 0.6, dtype=DTYPE)
    second = operators.Mask(dtype=DTYPE) if masks else operators.Downsample((2, 3), dtype=DTYPE)
    return operators.Stack([blur, second])


# How to make an operator, and its data.
KINDS = {
    "downsample": (lambda: operators.Downsample((2, 3), image_size=(8, 9), dtype=DTYPE), None),
    "fourier": (lambda: operators.FourierMask(dtype=DTYPE), MASKS),
    "stack": (_stack, None),
    "stack with data": (lambda: _stack(True), [None, MASKS]),
    "own": (lambda: Means(dtype=DTYPE), None),
    "composed": (
        lambda: (
            2.0 * operators.Downsample(2, dtype=DTYPE) @ operators.GaussianBlur(3, 0.6, dtype=DTYPE)
        ),
        None,
    ),
}


def _inputs(kind):
    """The operator, and what a layer is given: a measurement, or a pair with data."""
    make, data = KINDS[kind]
    operator = make()
    y = operator(IMAGES, data) if data is not None else operator(IMAGES)
    return operator, y if data is None else (y, data)


def _layer(operator, **kwargs):
    """With a large weight a solve takes few steps."""
    return layers.Variational(operator, Smooth(dtype=DTYPE), weight=3.0, dtype=DTYPE, **kwargs)


def _start(kind):
    """Where the size does not follow from that of the measurement."""
    return {"initial_value": tf.zeros_like(IMAGES)} if kind == "composed" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_is_the_minimiser(kind):
    operator, inputs = _inputs(kind)
    layer = _layer(operator)
    solution = layer.solve(inputs, **_start(kind))
    assert solution.value.shape == IMAGES.shape
    assert solution.value.dtype == DTYPE
    assert solution.converged.numpy().all()
    gradient = layer.energy_gradient(solution.value, inputs)
    scale = tf.norm(layer.energy_gradient(0 * IMAGES, inputs))
    assert float(tf.norm(gradient) / scale) < 3e-5
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        energy = layer.energy(IMAGES, inputs)
    expected = tape.gradient(energy, IMAGES)
    np.testing.assert_allclose(layer.energy_gradient(IMAGES, inputs), expected, atol=1e-12)
    assert layer.cell.certified is (kind != "own")


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_of_the_cell(kind):
    operator, inputs = _inputs(kind)
    if kind == "composed":  # of images whose size is a multiple
        inputs = operator(IMAGES[:, :, :8])
    testing.cell_test(_layer(operator).cell, inputs)


@pytest.mark.parametrize(
    "kind", marked(["downsample", "fourier", "stack with data", "own"], ["fourier", "own"])
)
def test_gradients_are_those_of_unrolled_steps(kind):
    operator, inputs = _inputs(kind)
    layer = _layer(operator, solver=solvers.Picard(tolerance=1e-14))
    layer.build(tf.nest.map_structure(lambda x: x if x is None else x.shape, inputs))
    sources = [x for x in tf.nest.flatten(inputs) if x is not None]
    weights, found = [w.value for w in layer.trainable_weights], []
    exact = adjoints.Implicit(linear_solvers.ConjugateGradient(tolerance=1e-13))
    for adjoint in (exact, adjoints.Unrolled(30)):
        layer.adjoint = adjoint
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = tf.reduce_sum(tf.sin(3.0 * layer(inputs)))
        found.append(tape.gradient(loss, [*sources, *weights]))
    for implicit, unrolled in zip(*found, strict=True):
        assert implicit.dtype == unrolled.dtype
        assert np.linalg.norm(unrolled) > 1e-8
        assert np.linalg.norm(implicit - unrolled) <= 1e-8 * np.linalg.norm(unrolled)


def test_the_size_of_an_image_is_that_of_its_initial_value():
    layer = _layer(operators.Downsample(2, dtype=DTYPE))
    y = layer.operator(IMAGES)
    # One step is enough for a size.
    assert layer.solve(y, max_steps=1).value.shape == (2, 8, 10, 1)
    start = tf.zeros_like(IMAGES)
    assert layer.solve(y, max_steps=1, initial_value=start).value.shape == IMAGES.shape
    inputs = keras.Input((4, 5, 1), dtype=DTYPE)
    assert layer(inputs).shape == (None, 8, 10, 1)
    start = keras.Input((8, 9, 1), dtype=DTYPE)
    assert layer(inputs, initial_value=start).shape == (None, 8, 9, 1)


@pytest.mark.parametrize("kind", [pytest.param("downsample", marks=pytest.mark.slow), "fourier"])
def test_models_and_files(kind, tmp_path):
    """Symbolic shapes and dtypes, `fit`, `.keras`, and a SavedModel for images of any size."""
    if kind == "fourier":
        operator, data = operators.FourierMask(), tf.cast(MASKS, "float32")
        images = [keras.Input((None, None, 1), dtype="complex64"), keras.Input((None, None, 1))]
    else:
        operator, data, images = operators.Downsample(2), None, keras.Input((None, None, 1))
    solver = solvers.Picard(tolerance=1e-6)  # the quickest to trace, as the adjoint
    layer = layers.Variational(operator, Smooth(), 3.0, solver=solver, adjoint="jacobian_free")
    model = keras.Model(images, layer(images))
    assert model.output_shape == (None, None, None, 1)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)  # or a step of `fit` is traced twice
    truth = tf.cast(IMAGES[:, :, :8], "float32")

    def measured(truth):
        if data is None:
            return operator(truth)
        mask = data[: len(truth), : truth.shape[1], : truth.shape[2]]
        return [operator(truth, mask), mask]

    assert np.isfinite(model.fit(measured(truth), truth, verbose=0).history["loss"][0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    for part in (truth, truth[:1, :6, :4]):
        y = measured(part)
        expected = model(y)
        assert expected.shape == part.shape
        np.testing.assert_array_equal(loaded(y), expected)
        np.testing.assert_allclose(served.serve(y), expected, atol=1e-5)


@pytest.mark.parametrize(
    "kind", marked(["downsample", "fourier", "stack with data"], ["fourier", "stack with data"])
)
def test_the_solution_in_float32(kind):
    operator, inputs = _inputs(kind)
    exact = _layer(operator)
    single = keras.saving.serialize_keras_object(exact)
    layer = keras.saving.deserialize_keras_object(_in_float32(single))
    exact.build(tf.nest.map_structure(lambda x: x if x is None else x.shape, inputs))
    solution = layer.solve(inputs)
    assert solution.value.dtype == "float32"
    assert solution.converged.numpy().all()
    exact.set_weights(layer.get_weights())
    gradient = exact.energy_gradient(tf.cast(solution.value, DTYPE), inputs)
    scale = tf.norm(exact.energy_gradient(0 * IMAGES, inputs))
    assert float(tf.norm(gradient) / scale) < 1e-4


def _in_float32(config):
    if isinstance(config, dict):
        return {key: _in_float32(part) for key, part in config.items()}
    if isinstance(config, list):
        return [_in_float32(part) for part in config]
    return "float32" if config == "float64" else config


@pytest.mark.parametrize("with_data", marked([False, True], [True]))
def test_several_measurements_in_a_model(with_data, tmp_path):
    operator, inputs = _inputs("stack with data" if with_data else "stack")
    symbolic = tf.nest.map_structure(
        lambda x: None if x is None else keras.Input(x.shape[1:], dtype=DTYPE), inputs
    )
    tensors = [x for x in tf.nest.flatten(inputs) if x is not None]
    layer = _layer(operator)
    arguments = [x for x in tf.nest.flatten(symbolic) if x is not None]
    model = keras.Model(arguments, layer(symbolic))
    expected = model(tensors)
    np.testing.assert_allclose(expected, layer.solve(inputs).value, atol=1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(tensors), expected)


def test_nested_measurements_are_told_from_data():
    """Two stacks of two: four measurements look like a pair of two measurements and two data."""
    mask = operators.Mask(dtype=DTYPE)
    inner = [operators.Stack([operators.Identity(dtype=DTYPE), mask]) for _ in range(2)]
    layer = _layer(operators.Stack(inner))
    data = [[None, MASKS], [None, 1.0 - MASKS]]
    y = layer.operator(IMAGES, data)
    solution = layer.solve((y, data))
    assert solution.converged.numpy().all()
    plain = _layer(operators.Stack([operators.Stack([operators.Identity(dtype=DTYPE)] * 2)] * 2))
    assert plain.solve(y, max_steps=1).value.shape == IMAGES.shape
    for wrong in (y[0], [y[0], y[1], y[0]], y[0][0], (y, data, data)):
        with pytest.raises(ValueError, match="a list of measurements or a pair"):
            plain.solve(wrong)
    with pytest.raises(ValueError, match=r"a measurement or a pair \(measurement"):
        _layer(operators.Identity(dtype=DTYPE)).solve([IMAGES, None, IMAGES])


def test_a_complex_measurement_is_not_cut_to_its_real_part():
    operator, inputs = _inputs("fourier")
    layer = _layer(operator)
    real_part = (tf.cast(tf.math.real(inputs[0]), inputs[0].dtype), inputs[1])
    assert np.abs(layer(inputs) - layer(real_part)).max() > 1e-2
    with pytest.raises(ValueError, match="complex"):
        layer((tf.math.real(inputs[0]), inputs[1]))
