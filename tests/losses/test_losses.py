"""Losses without clean images estimate what they say, and train a model like any other loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, losses, operators, priors, solvers
from deq_keras.operators import gaussian_noise

SIGMA = 0.2
DRAWS = 4000


class Linear(keras.layers.Layer):
    """Images of four pixels times a matrix: a denoiser whose divergence is a trace."""

    def __init__(self, seed=0):
        super().__init__(dtype="float64")
        rng = np.random.default_rng(seed)
        self.matrix = tf.Variable(0.5 * np.eye(4) + 0.2 * rng.normal(size=(4, 4)))

    def call(self, y):
        rows = tf.reshape(y, (-1, 4)) @ tf.transpose(self.matrix)
        return tf.reshape(rows, tf.shape(y))


TRUTH = tf.constant(np.random.default_rng(1).uniform(size=(2, 2, 1)))
NOISE = SIGMA * np.random.default_rng(2).normal(size=(DRAWS, 2, 2, 1))


def examples(loss, truth=TRUTH, count=DRAWS):
    """Batches of inputs and targets for one truth and many noises."""
    clean = loss.predict(truth[None], truth.dtype)[0]

    def one(index):
        return loss.prepare(lambda seed, i: gaussian_noise(clean, SIGMA, seed, i), 0, index)

    spec = tf.TensorSpec(clean.shape, clean.dtype)
    draw = tf.function(
        lambda indices: tf.map_fn(one, indices, fn_output_signature=(spec, spec)), autograph=False
    )
    return draw(tf.range(count, dtype=tf.int64))


def mean_and_error(values):
    return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))


def exact_risk(matrix, noise, operator=None):
    """`E ||K A (K u + n) - K u||^2 / m` in closed form."""
    k = np.eye(4) if operator is None else operator
    clean = k @ np.ravel(TRUTH)
    h = k @ np.asarray(matrix)
    return (np.sum((h @ clean - clean) ** 2) + noise**2 * np.sum(h**2)) / 4


@pytest.fixture(scope="module")
def sure_examples():
    """They do not depend on the step of the loss."""
    return examples(losses.SURE(SIGMA))


@pytest.mark.parametrize("step", [None, 0.1])
def test_sure_is_unbiased_on_a_linear_denoiser(step, sure_examples):
    model, loss = Linear(), losses.SURE(SIGMA, step)
    y, signs = sure_examples
    values = loss.values(lambda y, training: model(y), y, model(y), signs, True)
    mean, error = mean_and_error(values)
    assert abs(mean - exact_risk(model.matrix, SIGMA)) < 4 * error
    assert error < 0.02 * mean
    # The term of the divergence alone is the trace.
    here = model(y)
    misfit = tf.reduce_mean((here - y) ** 2, axis=(1, 2, 3))
    divergence = (values - misfit + SIGMA**2) / (2 * SIGMA**2)
    mean, error = mean_and_error(divergence)
    assert abs(mean - float(tf.linalg.trace(model.matrix)) / 4) < 4 * error


def test_sure_behind_an_operator_estimates_the_error_of_the_prediction():
    model, blur = Linear(), operators.GaussianBlur(3, 0.7, dtype="float64")
    loss = losses.SURE(SIGMA, operator=blur)
    matrix = np.stack([np.ravel(blur(e.reshape(1, 2, 2, 1))) for e in np.eye(4)], axis=1)
    y, signs = examples(loss)
    values = loss.values(lambda y, training: model(y), y, model(y), signs, True)
    mean, error = mean_and_error(values)
    assert abs(mean - exact_risk(model.matrix, SIGMA, matrix)) < 4 * error


def test_recorrupted_is_unbiased_at_its_noise_level():
    model = Linear()
    for strength in (0.5, 1.0):
        loss = losses.Recorrupted(SIGMA, strength)
        y, target = examples(loss)
        noise, other = (np.asarray(x - TRUTH).reshape(-1, 4) for x in (y, target))
        assert np.std(noise) == pytest.approx(SIGMA * np.sqrt(1 + strength**2), rel=0.03)
        correlation = np.mean(noise * other) / np.std(noise) / np.std(other)
        assert abs(correlation) < 4 / np.sqrt(noise.size)
        mean, error = mean_and_error(loss.values(None, y, model(y), target, True))
        assert abs(mean - exact_risk(model.matrix, SIGMA * np.sqrt(1 + strength**2))) < 4 * error


def test_noise2noise_is_the_error_and_the_variance():
    model, loss = Linear(), losses.Noise2Noise()
    y, target = examples(loss)
    mean, error = mean_and_error(loss.values(None, y, model(y), target, True))
    assert abs(mean - exact_risk(model.matrix, SIGMA) - SIGMA**2) < 4 * error


def test_noise2noise_takes_complex_measurements_and_other_masks():
    loss = losses.Noise2Noise(operators.FourierMask())
    rng = np.random.default_rng(0)
    image = tf.constant(rng.normal(size=(2, 4, 6, 1)), tf.float32)
    mask = tf.constant(rng.uniform(size=(2, 4, 6, 1)) < 0.5, tf.float32)
    y = loss.operator(image, mask) + tf.complex(0.3, 0.4)
    np.testing.assert_allclose(loss.values(None, None, image, (y, mask), True), 0.25, rtol=1e-5)


@pytest.mark.parametrize("name", ["sure", "r2r"])
def test_what_says_nothing_is_refused_in_words(name):
    loss = losses.get(name, noise_level=0.1)
    complex_one = lambda seed, index: tf.zeros((4, 4, 1), tf.complex64)  # noqa: E731
    masked = lambda seed, index: (tf.zeros((4, 4, 1)), tf.ones((4, 4, 1)))  # noqa: E731
    for measure, what in ((complex_one, "a complex one"), (masked, "data of its operator")):
        with pytest.raises(ValueError, match=f"one real measurement.*{what}.*Noise2Noise"):
            loss.prepare(measure, 0, 0)
    for arguments in ({"noise_level": 0.0}, {"noise_level": 0.1, "operator": "blur"}):
        with pytest.raises(ValueError, match="Expected|expected"):
            losses.get(name, **arguments)
    with pytest.raises(ValueError, match="Did you mean 'sure'"):
        losses.get("sur")


@pytest.mark.parametrize("name", ["sure", "r2r", "noise2noise"])
def test_an_example_is_a_function_of_its_number(name):
    loss = losses.get(name, **({} if name == "noise2noise" else {"noise_level": SIGMA}))

    def one(seed, index):
        return loss.prepare(lambda *numbers: gaussian_noise(TRUTH, SIGMA, *numbers), seed, index)

    first, again, other = one(0, 7), one(0, 7), one(0, 8)
    tf.nest.map_structure(np.testing.assert_array_equal, first, again)
    assert all(np.any(a != b) for a, b in zip(first, other, strict=True))
    again = losses.get(losses.get(name, **loss.get_config()))
    assert again.get_config().keys() == loss.get_config().keys()


def small_model(loss, dtype="float64", tolerance=1e-11):
    """Denoising with two experts, of a small problem."""
    prior = priors.FieldsOfExperts(2, 3, sharpness=20.0, padding="circular", dtype=dtype)
    layer = layers.Variational(
        operators.Identity(dtype=dtype),
        prior,
        adjoint=layers_adjoint(tolerance),
        solver=solvers.LBFGS(tolerance=tolerance),
        dtype=dtype,
    )
    inputs = keras.Input((6, 7, 1), dtype=dtype)
    return losses.SelfSupervised(inputs, layer(inputs), loss=loss), layer


def layers_adjoint(tolerance):
    solver = linear_solvers.ConjugateGradient(tolerance=tolerance)
    return adjoints.Implicit(solver, higher_order=True)


@pytest.mark.slow  # a second derivative, as in tests/adjoints
def test_the_derivative_of_sure_goes_through_the_divergence():
    """Against finite differences, and the divergence against the product with the Jacobian."""
    model, layer = small_model(losses.SURE(SIGMA))
    rng = np.random.default_rng(0)
    y = tf.constant(rng.uniform(size=(2, 6, 7, 1)))
    signs = tf.constant(np.sign(rng.normal(size=y.shape)))
    variable = layer.cell.log_weight

    @tf.function(autograph=False)
    def value():
        prediction = model(y, training=True)
        return model.compute_loss(y, signs, prediction, training=True)

    with tf.GradientTape() as tape:
        found = value()
    slope = float(tape.gradient(found, variable))
    start, step, sides = float(variable), 1e-4, []
    for sign in (1, -1):
        variable.assign(start + sign * step)
        sides.append(float(value()))
    assert slope == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-5)
    variable.assign(start)
    with tf.GradientTape() as tape:
        tape.watch(y)
        total = tf.reduce_sum(signs * model(y))
    product = tf.reduce_mean(signs * tape.gradient(total, y))  # b^T J b
    misfit = tf.reduce_mean((model(y) - y) ** 2)
    divergence = (float(value()) - float(misfit) + SIGMA**2) / (2 * SIGMA**2)
    assert divergence == pytest.approx(float(product), rel=1e-7)


def plain_model(loss):
    """A network of one convolution."""
    inputs = keras.Input((None, None, 1))
    outputs = keras.layers.Conv2D(1, 3, padding="same")(inputs)
    return losses.SelfSupervised(inputs, outputs, loss=loss)


def test_a_model_is_fitted_saved_and_loaded(tmp_path):
    loss = losses.SURE(0.1)
    model = plain_model(loss)
    model.compile("adam", metrics=["mse"])
    model.optimizer.build(model.trainable_variables)  # so that `fit` traces its step once
    rng = np.random.default_rng(0)
    y = rng.uniform(size=(4, 6, 7, 1)).astype("float32")
    signs = np.sign(rng.normal(size=y.shape)).astype("float32")
    before = model.get_weights()[0]
    history = model.fit(y, (y, signs), batch_size=2, verbose=0).history
    assert np.any(model.get_weights()[0] != before)
    assert set(history) >= {"loss", "mse"}
    expected = np.mean((model(y) - y) ** 2)
    found = model.evaluate(y, (y, signs), verbose=0, return_dict=True)
    assert found["mse"] == pytest.approx(expected, rel=1e-4)
    values = loss.values(model, tf.constant(y), model(y), tf.constant(signs), False)
    assert found["loss"] == pytest.approx(np.mean(values), rel=1e-4)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, losses.SelfSupervised)
    assert again.measurement_loss.get_config() == loss.get_config()
    np.testing.assert_allclose(again(y), model(y), atol=1e-6)


def test_without_a_truth_nothing_is_measured_and_other_losses_are_refused():
    model = plain_model(losses.SURE(0.1))
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    y = tf.random.uniform((4, 6, 7, 1))
    history = model.fit(y, tf.sign(y - 0.5), verbose=0).history
    assert np.isfinite(history["loss"][0])
    with pytest.raises(ValueError, match="expected no other loss"):
        model.compile("adam", loss="mse")
    with pytest.raises(ValueError, match="MeasurementLoss"):
        losses.SelfSupervised(model.inputs, model.outputs, loss="mse")
