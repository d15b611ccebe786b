"""The options of the equilibrium layer: warm starts, corrections, penalties, failure, reports."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import (
    adjoints,
    layers,
    linear_solvers,
    operators,
    priors,
    regularizers,
    solvers,
)
from deq_keras.numerics import jacobian
from tests.variants import covering, marked

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(3, 6, 5, 1)))
EXACT = {  # and the quickest to trace
    "solver": solvers.Picard(tolerance=1e-13),
    "adjoint": adjoints.Implicit(linear_solvers.Neumann(tolerance=1e-12)),
}
register = keras.saving.register_keras_serializable(package="test_equilibrium_options")


def _convolution(filters, seed, dtype, stddev=0.15):
    small = keras.initializers.RandomNormal(stddev=stddev, seed=seed)
    return keras.layers.Conv2D(
        filters, 3, padding="same", activation="tanh", kernel_initializer=small, dtype=dtype
    )


@register
class Cell(keras.layers.Layer):
    """`y + factor tanh(convolution)`; with a loss and a dropout of its own if asked for."""

    def __init__(self, factor=0.4, rate=0.0, loss=0.0, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.factor, self.rate, self.loss = factor, rate, loss
        self.convolution = _convolution(1, 1, self.dtype_policy, 0.25)
        self.dropout = keras.layers.Dropout(rate, seed=3, dtype=self.dtype_policy)

    def build(self, z_shape, y_shape=None):
        self.convolution.build(z_shape)

    def call(self, z, y, training=None):
        if self.loss:
            self.add_loss(self.loss * tf.reduce_mean(z**2))
        return y + self.factor * self.dropout(self.convolution(z), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            **{"factor": self.factor, "rate": self.rate, "loss": self.loss},
        }


class TwoImages(layers.Cell):
    """A dictionary for a state."""

    def __init__(self):
        super().__init__(dtype=DTYPE)
        self.convolution = _convolution(2, 1, DTYPE)

    def initial_value(self, y):
        return {"image": tf.zeros_like(y), "edges": tf.zeros_like(y)}

    def call(self, z, y):
        hidden = self.convolution(tf.concat([z["image"], z["edges"]], -1))
        return {"image": y + hidden[..., :1] / 2, "edges": hidden[..., 1:] + z["image"] / 9}


class Expanding(keras.layers.Layer):
    """A map without a stable fixed point: `3 z + y`."""

    def call(self, z, y):
        return 3.0 * z + y


def _variational(strong=True, dtype=DTYPE, **kwargs):
    """Denoising, which is strongly convex, or inpainting by masks of the images."""
    operator = operators.Identity(dtype=dtype) if strong else operators.Mask(dtype=dtype)
    prior = priors.FieldsOfExperts(3, 3, sharpness=8.0, padding="zero", dtype=dtype)
    return layers.Variational(operator, prior, weight=0.1, dtype=dtype, **kwargs)


def _fit(model, x, y=None, epochs=1, **kwargs):
    targets = tf.zeros_like(x) if y is None else y
    return model.fit(x, targets, batch_size=len(x), epochs=epochs, verbose=0, **kwargs).history


def _model(layer, **compiled):
    inputs = keras.Input((None, None, 1), dtype=layer.variable_dtype)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1e-2), **{"loss": "mse", **compiled})
    model.optimizer.build(model.trainable_variables)  # or a step of `fit` is traced twice
    return model


def _gradients(layer, y, weights=None, **kwargs):
    """The output, in training, and derivatives of a loss by the measurement and the weights."""
    with tf.GradientTape() as tape:
        tape.watch(y)
        output = layer(y, training=True, **kwargs)
        loss = sum(
            tf.reduce_sum(tf.sin(tf.reshape(tf.range(tf.size(o), dtype=o.dtype), tf.shape(o))) * o)
            for o in tf.nest.flatten(output)
        )
    return output, tape.gradient(loss, [y, *(w.value for w in layer.trainable_weights)])


def _metrics(layer):
    return {m.name.removeprefix(f"{layer.name}_"): float(m.result()) for m in layer.metrics}


def _metric(layer, name):
    return _metrics(layer)[name]


def _assert_close(actual, expected, **tolerance):
    for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# Warm starts.


@pytest.mark.parametrize(
    "make",
    marked([Cell, TwoImages, None], [Cell, None]),
    ids=["cell", "structure", "energy"],
)
def test_started_at_the_solution_it_takes_one_step(make):
    layer = (
        _variational(**EXACT) if make is None else layers.Equilibrium(make(), **EXACT, dtype=DTYPE)
    )
    output, gradients = _gradients(layer, IMAGES)
    assert _metric(layer, "forward_steps") > 3
    solution = layer.solve(IMAGES)
    again = layer.solve(IMAGES, initial_value=solution.value)
    np.testing.assert_array_equal(again.steps, 1)
    assert again.converged.numpy().all()
    _assert_close(again.value, solution.value, rtol=0)
    for metric in layer.metrics:
        metric.reset_state()
    warm, warm_gradients = _gradients(layer, IMAGES, initial_value=solution.value)
    assert _metric(layer, "forward_steps") == 1
    _assert_close(warm, output, rtol=1e-11)
    _assert_close(warm_gradients, gradients, rtol=1e-9, atol=1e-12)


def test_a_start_nearby_saves_steps_and_changes_no_answer():
    layer = layers.Equilibrium(Cell(), **EXACT, dtype=DTYPE)
    cold = layer.solve(IMAGES)
    near = tf.cast(cold.value + 1e-6, tf.float32)  # of another dtype, too
    warm = layer.solve(IMAGES, initial_value=near)
    assert (warm.steps.numpy() < cold.steps.numpy()).all()
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-11)
    first = layer.solve(IMAGES, max_steps=1, initial_value=near)
    np.testing.assert_allclose(first.value, near, rtol=1e-7)


def test_a_start_is_an_input_of_a_model():
    layer = layers.Equilibrium(Cell(dtype="float32"), solvers.Picard(tolerance=1e-6))
    y, start = (keras.Input((None, None, 1)) for _ in range(2))
    model = keras.Model([y, start], layer(y, initial_value=start))
    images = tf.cast(IMAGES, tf.float32)
    solution = layer.solve(images)
    for z0 in (solution.value, tf.zeros_like(images)):
        np.testing.assert_allclose(model([images, z0]), solution.value, atol=1e-5)
    model([images, solution.value], training=True)
    assert _metric(layer, "forward_steps") == 1


# Corrections.

STEPS = (3, 6)


def _corrected(**kwargs):
    solver = solvers.Picard(tolerance=1e-13)
    options = {**EXACT, "solver": solver, "dtype": DTYPE, **kwargs}
    return layers.CorrectedEquilibrium(Cell(), STEPS, **options)


def test_corrections_are_a_step_from_intermediate_iterates():
    layer = _corrected()
    outputs = layer(IMAGES, training=True)
    assert isinstance(outputs, list)
    solution = layer.solve(IMAGES).value
    np.testing.assert_allclose(outputs[-1], solution, atol=1e-12)
    z, iterates = tf.zeros_like(IMAGES), []
    for _ in range(STEPS[-1]):
        iterates.append(z)
        z = layer.cell(z, IMAGES)
    for steps, output in zip(STEPS, outputs, strict=False):
        short = layer.solve(IMAGES, max_steps=steps).value
        np.testing.assert_allclose(short, iterates[steps - 1], rtol=1e-13)
        np.testing.assert_allclose(output, layer.cell(short, IMAGES), rtol=1e-13)
        assert np.abs(output - solution).max() > 1e-6, "these are not the solution yet"
    for output in layer(IMAGES):
        np.testing.assert_allclose(output, solution, atol=1e-12)


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_corrections_have_the_jacobian_free_gradient(index):
    layer = _corrected()
    iterate = layer.solve(IMAGES, max_steps=STEPS[index]).value
    weights = [w.value for w in layer.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(IMAGES)
        outputs = layer(IMAGES, training=True)
        loss = tf.reduce_sum(outputs[index] ** 3)
        expected = tf.reduce_sum(layer.cell(iterate, IMAGES) ** 3)
    for source in (IMAGES, *weights):
        np.testing.assert_allclose(
            tape.gradient(loss, source), tape.gradient(expected, source), rtol=1e-12
        )
    # The last output keeps the gradient that it has without corrections.
    solver = solvers.Picard(tolerance=1e-13)
    unsupervised = layers.Equilibrium(Cell(), **{**EXACT, "solver": solver}, dtype=DTYPE)
    plain, plain_gradients = _gradients(unsupervised, IMAGES)
    with tf.GradientTape() as tape:
        last = layer(IMAGES, training=True)[-1]
        order = tf.reshape(tf.range(tf.size(last), dtype=last.dtype), tf.shape(last))
        loss = tf.reduce_sum(tf.sin(order) * last)
    np.testing.assert_allclose(last, plain, rtol=1e-12)
    _assert_close(tape.gradient(loss, weights), plain_gradients[1:], rtol=1e-9)


def test_corrections_in_a_model_with_three_losses(tmp_path):
    layer = _corrected(adjoint="jacobian_free")
    assert layer.compute_output_shape((None, 8, 7, 1)) == [(None, 8, 7, 1)] * 3
    model = _model(layer, loss=["mse", "mse", "mae"], loss_weights=[0.1, 0.2, 1.0])
    assert len(model.outputs) == 3
    targets = [tf.zeros_like(IMAGES)] * 3
    first, second, last = outputs = layer(IMAGES, training=True)
    model.compute_loss(IMAGES, targets, outputs)  # it makes metrics, or `fit` traces twice
    expected = 0.1 * tf.reduce_mean(first**2) + 0.2 * tf.reduce_mean(second**2)
    expected += tf.reduce_mean(tf.abs(last))
    before = layer.cell.layer.convolution.kernel.numpy()
    history = _fit(model, IMAGES, targets, epochs=2)
    assert history["loss"][0] == pytest.approx(float(expected), rel=1e-6)
    assert history["loss"][1] < history["loss"][0]
    assert np.abs(layer.cell.layer.convolution.kernel - before).max() > 0
    again = layers.CorrectedEquilibrium.from_config(layer.get_config())
    assert again.corrections == STEPS
    assert again.get_config() == layer.get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for training in (False, True):
        expected = model(IMAGES, training=training)
        _assert_close(loaded(IMAGES, training=training), expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [(0,), (2.5,), (-1, 3)])
def test_wrong_corrections(steps):
    with pytest.raises(ValueError, match="`corrections`"):
        layers.CorrectedEquilibrium(Cell(), corrections=steps)


# What happens if a solve fails.


def _failing(direction, policy):
    """A layer that runs out of steps in one direction and not in the other."""
    solver, adjoint = EXACT["solver"], EXACT["adjoint"]
    if direction == "forward":
        solver = solvers.Picard(tolerance=1e-9, max_steps=2)
    else:
        adjoint = adjoints.Implicit(linear_solvers.GMRES(tolerance=1e-9, max_steps=2))
    return layers.Equilibrium(Cell(), solver, adjoint, on_failure=policy, dtype=DTYPE, name="deq")


WHAT = {"forward": "the fixed point", "backward": "the adjoint equation"}


POLICIES, MODES = ["silent", "warn", "error"], ["eager", "graph", "fit"]


FAILURES = [  # all pairs of two of them
    (list(WHAT)[(i + j) % 2], mode, policy)
    for i, mode in enumerate(MODES)
    for j, policy in enumerate(POLICIES)
]
OFTEN = [
    failure
    for failure in FAILURES
    if failure[1] == "eager" or failure[1:] in {("graph", "error"), ("fit", "warn")}
]


@pytest.mark.parametrize(("direction", "mode", "policy"), marked(FAILURES, OFTEN))
def test_a_failure_is_an_error_a_warning_or_silent(direction, mode, policy, capfd):
    layer = _failing(direction, policy)

    def run():
        if mode == "fit":
            return _fit(_model(layer), IMAGES)
        step = lambda: _gradients(layer, IMAGES)[1]  # noqa: E731
        return (tf.function(step, autograph=False) if mode == "graph" else step)()

    layer.build(IMAGES.shape)
    text = f"deq: {WHAT[direction]} was not found"
    if policy == "error":
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            run()
        message = str(caught.value)
        for part in (text, "Images: [0 1 2], steps: [2 2 2], relative residuals: ["):
            assert part in message
        return
    run()
    errors = capfd.readouterr().err
    if policy == "silent":
        assert "not found" not in errors
    else:
        assert errors.count(text) == 1
        assert "Warning:" in errors
        assert "Images: [0 1 2], steps: [2 2 2], relative residuals: [" in errors
    converged = {"forward": "converged", "backward": "backward_converged"}
    for name, metric in converged.items():
        assert _metric(layer, metric) == (0.0 if name == direction else 1.0)


def test_a_failure_names_the_images_that_failed(capfd):
    layer = layers.Equilibrium(
        Expanding(dtype=DTYPE), "picard", "jacobian_free", on_failure="warn", dtype=DTYPE
    )
    layer(tf.concat([IMAGES[:1], tf.zeros_like(IMAGES[:2]), IMAGES[1:2]], 0))
    errors = capfd.readouterr().err
    assert "Images: [0 3]" in errors
    assert errors.count("Warning") == 1


@pytest.mark.parametrize("policy", marked(["warn", "error"], ["error"]))
def test_nothing_is_said_when_all_is_well(policy, capfd):
    layer = layers.Equilibrium(Cell(), **EXACT, on_failure=policy, dtype=DTYPE)
    _fit(_model(layer), IMAGES)
    layer(IMAGES)
    printed = capfd.readouterr()
    assert "found" not in printed.err
    assert "Warning:" not in printed.out + printed.err
    assert layers.Equilibrium.from_config(layer.get_config()).on_failure == policy


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="'warning'. Did you mean 'warn'.*'silent', 'warn'"):
        layers.Equilibrium(Cell(), on_failure="warning")


# A penalty on the Jacobian.

PENALTIES = [
    "jacobian_frobenius",
    "jacobian_spectral",
    regularizers.FrobeniusPenalty(0.3, probes=2),
]


@pytest.mark.parametrize(
    "penalty", marked(PENALTIES, PENALTIES[1:]), ids=["frobenius", "spectral", "object"]
)
def test_the_penalty_is_a_loss_of_each_training_step(penalty):
    layer = layers.Equilibrium(Cell(), **EXACT, jacobian_regularizer=penalty, dtype=DTYPE)
    model = _model(layer)
    z, values = layer.solve(IMAGES).value, []
    for _ in range(2):
        seed = tf.cast(layer._seeds.state.value, tf.int32)
        with tf.GradientTape() as tape:
            model(IMAGES, training=True)
            (loss,) = model.losses
        map_ = lambda z: layer.cell(z, IMAGES)  # noqa: E731
        expected = layer.jacobian_regularizer(map_, z, seed)
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        assert float(loss) > 0
        gradient = tape.gradient(loss, layer.cell.layer.convolution.kernel.value)
        assert float(tf.norm(gradient)) > 0
        values.append(float(loss))
    assert abs(values[1] / values[0] - 1) > 1e-3, "the seeds must change"
    model(IMAGES, training=False)
    assert model.losses == []
    assert layer.solve(IMAGES).converged.numpy().all()
    again = layers.Equilibrium.from_config(layer.get_config())
    assert repr(again.jacobian_regularizer) == repr(layer.jacobian_regularizer)


@pytest.mark.slow  # it is a loss of the model, above
def test_the_penalty_is_part_of_what_fit_minimises():
    losses = {}
    for weight in (0.0, 10.0):
        penalty = regularizers.SpectralPenalty(weight)
        layer = layers.Equilibrium(Cell(), **EXACT, jacobian_regularizer=penalty, dtype=DTYPE)
        losses[weight] = _fit(_model(layer), IMAGES)["loss"][0]
        norm = jacobian.power(lambda z, f=layer.cell: f(z, IMAGES), IMAGES, (0, 0))
        losses[weight, "norm"] = float(tf.reduce_max(norm))
    assert losses[10.0] > losses[0.0] + 0.1
    assert losses[10.0, "norm"] < 0.99 * losses[0.0, "norm"]


def test_an_unknown_penalty():
    with pytest.raises(ValueError, match="Did you mean 'jacobian_frobenius'"):
        layers.Equilibrium(Cell(), jacobian_regularizer="jacobian_frobenious")


# What is reported.

REPORTED = ("forward_steps", "forward_residual", "converged", "error_bound")
REPORTED += ("backward_steps", "backward_residual", "backward_converged")


def _scalars(folder):
    """What was written for TensorBoard: name -> values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if tag.startswith("epoch_")
    }


def test_diagnostics_are_metrics_of_fit_and_in_tensorboard(tmp_path):
    solver, name = solvers.Nesterov(tolerance=1e-3), "bilevel"
    layer = _variational(solver=solver, adjoint=EXACT["adjoint"], name=name)
    model = _model(layer)
    layer.on_failure = "error"
    solution = layer.solve(IMAGES)
    exact = _variational(**EXACT)
    exact.build(IMAGES.shape)
    exact.set_weights(layer.get_weights())
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    history = _fit(model, IMAGES, epochs=2, callbacks=[board], validation_data=(IMAGES, IMAGES))
    for key in REPORTED:
        assert np.isfinite(history[f"{name}_{key}"]).all(), key
        assert np.isnan(history[f"val_{name}_{key}"]).all(), "nothing was measured there"
    first = {key: history[f"{name}_{key}"][0] for key in REPORTED}
    assert first["forward_steps"] == pytest.approx(np.mean(solution.steps))
    assert first["forward_residual"] == pytest.approx(np.mean(solution.residual), rel=1e-5)
    assert first["converged"] == first["backward_converged"] == 1.0
    assert first["backward_steps"] > 1
    assert 0 < first["backward_residual"] <= 1e-12
    difference = (solution.value - exact.solve(IMAGES).value).numpy()
    error = np.sqrt((difference**2).mean((1, 2, 3)))
    assert (error > 1e-6).all(), "there must be something to bound"
    assert error.mean() <= first["error_bound"] <= 100 * error.mean()
    scalars = _scalars(tmp_path / "train")
    for key in REPORTED:
        expected = history[f"{name}_{key}"]
        np.testing.assert_allclose(scalars[f"epoch_{name}_{key}"], expected, rtol=1e-6)


def test_there_is_no_error_bound_without_a_modulus():
    layer = layers.Equilibrium(Cell(), **EXACT, dtype=DTYPE)
    _gradients(layer, IMAGES)
    assert set(_metrics(layer)) == set(REPORTED) - {"error_bound"}
    assert np.isfinite(list(_metrics(layer).values())).all()


def test_there_is_no_error_bound_of_a_map_that_is_no_gradient():
    untied = priors.UntiedFieldsOfExperts(2, 3, padding="zero", dtype=DTYPE)
    cell = layers.GradientStep(operators.Identity(dtype=DTYPE), untied, dtype=DTYPE)
    assert not cell.may_certify
    layer = layers.Equilibrium(cell, dtype=DTYPE)
    layer(IMAGES, training=True)
    assert "error_bound" not in _metrics(layer)
    assert _metric(layer, "converged") == 1.0


def test_products_are_told_apart_from_maps():
    """Of a solver that takes some; of others there is no such metric, whatever it was before."""
    layer = layers.Equilibrium(Cell(), "newton_krylov", dtype=DTYPE)
    solution = layer.solve(IMAGES)
    assert (solution.products.numpy() > 0).all()
    layer(IMAGES, training=True)
    assert _metric(layer, "forward_products") == pytest.approx(np.mean(solution.products))
    assert _metric(layer, "forward_products") < _metric(layer, "forward_steps")
    layer.solver = solvers.Anderson()
    assert "forward_products" not in _metrics(layer)
    model = _model(layer)
    model(IMAGES, training=True)
    assert "forward_products" not in _metrics(layer)
    assert not any("products" in metric.name for metric in model.metrics)


def test_only_images_with_a_modulus_take_part_in_the_mean_bound():
    """The second image is not observed at all: its energy is convex, not strongly."""
    layer = _variational(strong=False, name="bilevel")
    masks = tf.concat([tf.ones_like(IMAGES[:1]), tf.zeros_like(IMAGES[:1])], 0)
    layer((IMAGES[:2], masks), training=True)
    assert np.isnan(_metric(layer, "error_bound"))
    assert _metric(layer, "converged") == 1.0


# What is tried once.


@register
class Step(keras.layers.Layer):
    """`z - tau (z - y + B^T tanh(A z))`; tied, `B = A`, or with weights that start equal."""

    def __init__(self, tied=True, **kwargs):
        super().__init__(**{"dtype": DTYPE, **kwargs})
        self.tied = tied

    def build(self, z_shape, y_shape=None):
        normal = keras.initializers.RandomNormal(stddev=0.15, seed=1)
        self.kernel = self.add_weight(shape=(3, 3, 1, 4), initializer=normal)
        self.other = self.kernel
        if not self.tied:
            self.other = self.add_weight(shape=(3, 3, 1, 4), initializer=normal)
        self.built = True

    def call(self, z, y):
        hidden = tf.tanh(tf.nn.conv2d(z, self.kernel, 1, "SAME"))
        back = tf.nn.conv2d_transpose(hidden, self.other, tf.shape(z), 1, "SAME")
        return z - 0.3 * (z - y + back)


@pytest.mark.parametrize(("tied", "graph"), [(True, False), (False, True)])
def test_the_symmetry_of_a_cell_decides_on_the_linear_solver(tied, graph, monkeypatch):
    used = []
    for cls in (linear_solvers.MINRES, linear_solvers.GMRES, linear_solvers.ConjugateGradient):
        correct = cls.correct

        def spy(self, *args, cls=cls, correct=correct):
            used.append(cls.__name__)
            return correct(self, *args)

        monkeypatch.setattr(cls, "correct", spy)
    layer = layers.Equilibrium(Step(tied), solvers.Anderson(tolerance=1e-12), dtype=DTYPE)
    if graph:  # the layer is built while the graph is traced
        tf.function(layer, autograph=False)(IMAGES)
    else:
        layer.build(IMAGES.shape)
    assert layer.structure.symmetric is tied
    assert layer.structure.source == {"symmetric": "tried", "couples_batch": "tried"}
    _, gradients = _gradients(layer, IMAGES)
    assert set(used) == {"MINRES" if tied else "GMRES"}
    unrolled = layers.Equilibrium(Step(tied), "picard", adjoints.Unrolled(40), dtype=DTYPE)
    _, expected = _gradients(unrolled, IMAGES)
    for a, b in zip(gradients, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)


class Cropping(keras.layers.Layer):
    """Needs images of 40 pixels: its window fits into no smaller ones."""

    def call(self, z, y):
        window = tf.nn.avg_pool2d(z, 40, 1, "VALID")
        return y + 0.3 * tf.reduce_mean(window, (1, 2), keepdims=True) * tf.sin(z)


def test_a_cell_that_small_images_do_not_fit_is_no_error(caplog):
    layer = layers.Equilibrium(Cropping(dtype=DTYPE), **EXACT, dtype=DTYPE)
    layer.build((None, None, None, 1))
    assert layer.structure[:2] == (None, None)
    assert set(layer.structure.source.values()) == {"unknown"}
    assert "could not find out whether it is `symmetric`" in caplog.text
    assert "could not find out whether it is `couples_batch`" in caplog.text
    y = tf.constant(np.random.default_rng(0).uniform(size=(1, 41, 42, 1)))
    assert layer.solve(y).converged.numpy().all()


@register
class Normalised(keras.layers.Layer):
    """`y + tanh(normalised z) / 4`."""

    def __init__(self, normalisation, **kwargs):
        super().__init__(dtype=DTYPE, **kwargs)
        self.normalisation = normalisation

    def call(self, z, y, training=None):
        return y + tf.tanh(self.normalisation(z, training=training)) / 4


@pytest.mark.parametrize(
    ("cls", "couples"),
    [
        (keras.layers.BatchNormalization, True),
        (keras.layers.LayerNormalization, False),
        (keras.layers.GroupNormalization, False),
        (keras.layers.Dropout, False),
    ],
)
def test_batch_normalisation_couples_images(cls, couples):
    arguments = {"rate": 0.4, "seed": 1} if cls is keras.layers.Dropout else {"axis": -1}
    if cls is keras.layers.GroupNormalization:
        arguments["groups"] = 1
    layer = layers.Equilibrium(Normalised(cls(**arguments, dtype=DTYPE)), dtype=DTYPE)
    layer.build(IMAGES.shape)
    assert layer.structure.couples_batch is couples


# Compaction.


def _compacting(kind, compact):
    """A layer, and inputs of which one needs many more steps than the others."""
    scale = tf.reshape(tf.constant([0.1, 3.0, 0.01], DTYPE), (3, 1, 1, 1))
    images = scale * tf.constant(np.random.default_rng(1).uniform(size=(3, 6, 5, 1)))
    adjoint = EXACT["adjoint"]
    if kind == "energy":
        masks = np.random.default_rng(2).uniform(size=(3, 6, 5, 1)) < 0.8
        masks[2] = True
        solver = solvers.Nesterov(tolerance=1e-4, compact=compact)
        layer = _variational(strong=False, solver=solver, adjoint=adjoint)
        return layer, [images, tf.constant(masks, DTYPE)]
    solver = solvers.Anderson(memory=2, tolerance=1e-6, compact=compact)
    return layers.Equilibrium(Cell(1.0), solver, adjoint, dtype=DTYPE), images


@pytest.mark.parametrize("graph", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", ["energy", pytest.param("cell", marks=pytest.mark.slow)])
def test_compaction_changes_nothing(kind, graph):
    found = []
    for compact in (False, True):
        layer, inputs = _compacting(kind, compact)
        layer.build(tf.nest.map_structure(lambda part: part.shape, inputs))
        weights = [w.value for w in layer.trainable_weights]

        def step(layer=layer, inputs=inputs, weights=weights):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                output = layer(inputs, training=True)
                loss = tf.reduce_sum(tf.exp(output))
            return output, tape.gradient(loss, [*tf.nest.flatten(inputs), *weights])

        output, gradients = tf.function(step, autograph=False)() if graph else step()
        solution = layer.solve(inputs)
        steps = solution.steps.numpy()
        assert steps.max() > steps.min(), "there must be something to leave out"
        found.append([output, solution.value, solution.steps, *gradients])
    for plain, compact in zip(*found, strict=True):
        np.testing.assert_allclose(compact, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["energy", "cell"])
def test_compaction_in_files(kind, tmp_path):
    layer, inputs = _compacting(kind, True)
    symbolic = tf.nest.map_structure(lambda t: keras.Input((None, None, 1), dtype=DTYPE), inputs)
    model = keras.Model(symbolic, layer(symbolic))
    expected = model(inputs)
    np.testing.assert_allclose(expected, _compacting(kind, False)[0](inputs), rtol=1e-9)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert any(part.solver.compact for part in loaded.layers if hasattr(part, "solver"))
    np.testing.assert_allclose(loaded(inputs), expected, rtol=1e-12)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(served.serve(inputs), expected, rtol=1e-9)


def test_compaction_of_a_batch_that_is_one_problem():
    """Images that are coupled stop together; the option is then of no use and no error."""
    outputs = []
    for compact in (False, True):
        solver = solvers.Anderson(tolerance=1e-12, compact=compact)
        cell = Normalised(keras.layers.BatchNormalization(dtype=DTYPE))
        outputs.append(layers.Equilibrium(cell, solver, dtype=DTYPE)(IMAGES, training=True))
    np.testing.assert_allclose(*outputs, rtol=1e-12)


# Dtypes.


@pytest.mark.parametrize(
    ("kind", "policy"),
    covering(
        product(["energy", "cell"], ["float64", "float32", "mixed_float16", "mixed_bfloat16"])
    ),
)
def test_solves_in_the_dtype_of_the_variables(kind, policy):
    keras.config.set_dtype_policy(policy)
    kept, computed = keras.config.dtype_policy().variable_dtype, policy.removeprefix("mixed_")
    layer = (
        _variational(dtype=policy) if kind == "energy" else layers.Equilibrium(Cell(dtype=policy))
    )
    y = tf.cast(IMAGES, tf.float32)
    solution = layer.solve(y)
    assert solution.value.dtype == kept
    # The gradient steps of an energy and what they are made of stay in that dtype; a cell of
    # one's own computes as its policy says, and half precision is as far as its residual can go.
    if kind == "energy" or not policy.startswith("mixed"):
        assert solution.converged.numpy().all()
        assert (solution.residual.numpy() <= 1e-5).all()
    output, gradients = _gradients(layer, y)
    assert output.dtype == computed
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    assert {g.dtype.name for g in gradients[1:]} == {kept}


# Dropout, losses and metrics inside of the cell.


def test_one_mask_for_all_evaluations_of_a_solve():
    layer = layers.Equilibrium(Cell(rate=0.4), **EXACT, dtype=DTYPE)
    layer.build(IMAGES.shape)
    outputs = []
    for _ in range(2):
        seed = layer.cell.layer.dropout.seed_generator.state
        before = seed.numpy()
        output = layer(IMAGES, training=True)
        assert (seed.numpy() != before).any()
        seed.assign(before)  # the mask of this step once more
        np.testing.assert_allclose(layer.cell(output, IMAGES, training=True), output, atol=1e-11)
        outputs.append(output)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3, "each step has another mask"


@pytest.mark.parametrize(
    "adjoint",
    ["implicit", *marked([adjoints.Phantom(3), adjoints.Unrolled(12)], [])],
)
def test_a_loss_of_the_cell_counts_once(adjoint):
    images = tf.cast(IMAGES, tf.float32)  # the dtype in which Keras adds losses
    layer = layers.Equilibrium(Cell(loss=0.5, dtype="float32"), "picard", adjoint)
    model = _model(layer)
    output = model(images, training=True)
    (loss,) = model.losses
    assert float(loss) == pytest.approx(0.5 * float(tf.reduce_mean(output**2)), rel=1e-3)
    history = _fit(model, images)
    expected = float(loss) + float(tf.reduce_mean(output**2))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-6)


class Outer(keras.layers.Layer):
    """Solves for a fixed point of its own in each evaluation."""

    def __init__(self):
        super().__init__(dtype=DTYPE)
        self.inside = layers.Equilibrium(Cell(loss=0.5), "picard", dtype=DTYPE, name="inside")

    def call(self, z, y, training=None):
        return y + 0.2 * self.inside(z, training=training)


def test_what_a_nested_equilibrium_reports_counts_once():
    layer = layers.Equilibrium(Outer(), "picard", dtype=DTYPE, name="outside")
    step = tf.function(lambda y: (layer(y, training=True), layer.losses), autograph=False)
    layer.build(IMAGES.shape)
    output, losses = step(IMAGES)
    inside = layer.cell.layer.inside
    counts = {m.name: float(m.count) for m in layer.metrics}
    assert counts["inside_forward_steps"] == counts["outside_forward_steps"] == len(IMAGES)
    inner = inside.solve(output)
    assert _metric(inside, "forward_steps") == pytest.approx(np.mean(inner.steps))
    (loss,) = losses
    assert float(loss) == pytest.approx(0.5 * float(tf.reduce_mean(inner.value**2)), rel=1e-4)
