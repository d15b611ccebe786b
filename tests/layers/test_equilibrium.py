"""The equilibrium layer: cells of one's own, in training and out of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers, testing
from tests.variants import marked

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(3, 6, 5, 1)))
COTANGENT = tf.constant(np.random.default_rng(1).normal(size=(3, 6, 5, 1)))
register = keras.saving.register_keras_serializable(package="test_equilibrium")


def _small(seed=1):
    return keras.initializers.RandomNormal(stddev=0.1, seed=seed)


@register
class Cell(keras.layers.Layer):
    """`y + tanh(convolution, normalised, with dropout) / 3`."""

    def __init__(self, normalisation=None, rate=0.0, dtype=DTYPE, **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.convolution = keras.layers.Conv2D(
            1, 3, padding="same", kernel_initializer=_small(), dtype=dtype
        )
        self.normalisation = normalisation
        self.dropout = keras.layers.Dropout(rate, seed=3, dtype=dtype)

    def build(self, z_shape, y_shape=None):
        self.convolution.build(z_shape)
        if self.normalisation is not None:
            self.normalisation.build(z_shape)

    def call(self, z, y, training=None):
        hidden = self.convolution(z)
        if self.normalisation is not None:
            hidden = self.normalisation(hidden, training=training)
        return y + tf.tanh(self.dropout(hidden, training=training)) / 3


@register
class CellWithoutFlag(Cell):
    """Holds a Dropout and is told nothing of training."""

    def call(self, z, y):
        return y + tf.tanh(self.dropout(self.convolution(z))) / 3


class CellOfAList(Cell):
    """Takes one argument, as a `keras.Model` of two inputs does."""

    def build(self, shapes):
        super().build(*shapes)

    def call(self, inputs, training=None):
        return super().call(*inputs, training=training)


def _functional():
    z, y = keras.Input((None, None, 1), dtype=DTYPE), keras.Input((None, None, 1), dtype=DTYPE)
    both = keras.layers.Concatenate(dtype=DTYPE)([z, y])
    options = {"padding": "same", "dtype": DTYPE}
    hidden = keras.layers.Conv2D(4, 3, kernel_initializer=_small(), **options)(both)
    hidden = keras.layers.Dropout(0.3, seed=5, dtype=DTYPE)(keras.ops.tanh(hidden))
    out = keras.layers.Conv2D(1, 3, kernel_initializer=_small(2), **options)(hidden)
    return keras.Model([z, y], out)


# Each has a state that training changes.
CELLS = {
    "dropout": lambda: Cell(rate=0.3),
    "dropout_without_flag": lambda: CellWithoutFlag(rate=0.3),
    "dropout_of_a_list": lambda: CellOfAList(rate=0.3),
    "batch_normalisation": lambda: Cell(keras.layers.BatchNormalization(dtype=DTYPE)),
    "functional": _functional,
}
OFTEN = ["dropout_without_flag", "batch_normalisation", "functional"]


def _layer(cell, **kwargs):
    solver = solvers.Picard(tolerance=1e-13)  # the quickest to trace, as the linear solver
    adjoint = adjoints.Implicit(linear_solvers.Neumann(tolerance=1e-12))
    return layers.Equilibrium(
        CELLS[cell]() if isinstance(cell, str) else cell,
        **{"solver": solver, "adjoint": adjoint, "dtype": DTYPE, **kwargs},
    )


def _state(layer):
    return [v.numpy().copy() for v in layer.cell.variables if not v.trainable]


def _train(layer, graph=False):
    """Output, gradients, and the cell's state before and after."""
    layer.build(IMAGES.shape)
    before = _state(layer)

    def run():
        with tf.GradientTape() as tape:
            tape.watch(IMAGES)
            output = layer(IMAGES, training=True)
            loss = tf.reduce_sum(COTANGENT * output)
        weights = [w.value for w in layer.trainable_weights]
        return output, tape.gradient(loss, [IMAGES, *weights])

    if graph:
        run = tf.function(run, autograph=False)
    output, gradients = run()
    return output, gradients, before, _state(layer)


# The others are like those of tests/adjoints/test_structures.py.
@pytest.mark.parametrize("cell", ["dropout_without_flag", "dropout_of_a_list", "functional"])
def test_training_equals_unrolled_with_the_same_masks_and_statistics(cell):
    layer = _layer(cell)
    output, gradients, before, after = _train(layer)
    unrolled = _layer(cell, solver="picard", adjoint=adjoints.Unrolled(25))
    expected, expected_gradients, unrolled_before, unrolled_after = _train(unrolled)
    np.testing.assert_allclose(output, expected, atol=1e-11)
    for gradient, same in zip(gradients, expected_gradients, strict=True):
        scale = np.linalg.norm(same)
        if scale > 1e-10:  # a bias has no effect before batch normalisation
            assert np.linalg.norm(gradient - same) <= 1e-9 * scale
    for ours, theirs in zip(before + after, unrolled_before + unrolled_after, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("cell", marked(CELLS, OFTEN))
def test_state_is_updated_exactly_once(cell):
    layer = _layer(cell)
    output, _, before, after = _train(layer, graph=True)
    # What one ordinary call of the cell in training at the solution changes, and no more.
    once = _layer(cell)
    once.build(IMAGES.shape)
    once.cell(output, IMAGES, training=True)
    assert before
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    for ours, theirs in zip(after, _state(once), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("cell", marked(CELLS, OFTEN))
def test_inference_and_solve_change_nothing_and_drop_nothing(cell):
    layer = _layer(cell)
    layer.build(IMAGES.shape)
    before = _state(layer)
    outputs = [layer(IMAGES), layer(IMAGES, training=False), layer.solve(IMAGES).value]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], atol=1e-11)
    trained = layer.solve(IMAGES, training=True).value
    assert np.abs(trained - outputs[0]).max() > 1e-4, "dropout or batch statistics must show"
    for a, b in zip(before, _state(layer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_masks_change_from_call_to_call():
    layer = _layer("dropout")
    first, second = layer(IMAGES, training=True), layer(IMAGES, training=True)
    assert np.abs(first - second).max() > 1e-3


def test_an_outer_training_flag_reaches_the_cell():
    """As it does in Keras, also a cell that is told nothing of it."""
    inputs = keras.Input((6, 5, 1), dtype=DTYPE)
    model = keras.Model(inputs, _layer("dropout_without_flag")(inputs))
    quiet = model(IMAGES, training=False)
    np.testing.assert_allclose(model(IMAGES), quiet, atol=1e-12)
    assert np.abs(model(IMAGES, training=True) - quiet).max() > 1e-3


# States of other shapes.


@register
class WideCell(layers.Cell):
    """Its state has more channels than the measurement."""

    def __init__(self, width=4, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        options = {"padding": "same", "kernel_initializer": _small(), "dtype": self.dtype_policy}
        self.recurrent = keras.layers.Conv2D(width, 3, activation="tanh", **options)
        self.forward = keras.layers.Conv2D(width, 3, **options)

    def build(self, z_shape, y_shape):
        self.recurrent.build(z_shape)
        self.forward.build(y_shape)

    def initial_value(self, y):
        return tf.zeros((*tf.unstack(tf.shape(y)[:3]), self.width), y.dtype)

    def call(self, z, y):
        return self.recurrent(z) / 4 + self.forward(y)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@register
class TwoScales(layers.Cell):
    """A dictionary of two images for a state; it leaves building to Keras."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = keras.layers.Conv2D(
            2, 3, padding="same", kernel_initializer=_small(), dtype=self.dtype_policy
        )

    def initial_value(self, y):
        return {"image": tf.zeros_like(y), "edges": [tf.zeros_like(y)]}

    def call(self, z, y):
        hidden = tf.tanh(self.convolution(tf.concat([z["image"], z["edges"][0]], -1)))
        image = y + hidden[..., :1] / 3
        return {"image": image, "edges": [hidden[..., 1:] / 3 + z["image"] / 10]}


@register
class ManyInputs(keras.layers.Layer):
    """Its measurement is a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.3))

    def call(self, z, y):
        return y["image"] * y["mask"] + self.scale * tf.sin(z)


def _check_gradient(layer, part, weight):
    """A central difference along one direction."""

    def loss():
        return tf.reduce_sum(tf.exp(part(layer(IMAGES))))

    with tf.GradientTape() as tape:
        value = loss()
    direction = np.random.default_rng(2).normal(size=weight.shape)
    known = np.sum(direction * tape.gradient(value, weight.value))
    start, step, difference = weight.numpy(), 1e-5, 0.0
    for sign in (1, -1):
        weight.assign(start + sign * step * direction)
        difference += sign * float(loss()) / (2 * step)
    assert known == pytest.approx(difference, rel=1e-6)


def test_a_state_of_another_shape_than_the_measurement():
    options = {"check_graph": False, "check_predict": False, "check_fit": False}
    arguments = {"cell": WideCell(), "solver": "picard", "adjoint": "jacobian_free"}
    testing.layer_test(layers.Equilibrium, arguments, (2, 6, 5, 2), rtol=1e-4, **options)
    cell = WideCell(dtype=DTYPE)
    layer = _layer(cell)
    assert layer(IMAGES).shape == (3, 6, 5, 4)
    _check_gradient(layer, lambda z: z, cell.recurrent.kernel)


def test_a_nested_state():
    cell = TwoScales(dtype=DTYPE)
    layer = _layer(cell)
    output = layer(IMAGES)
    again = cell(output, IMAGES)
    np.testing.assert_allclose(output["image"], again["image"], atol=1e-11)
    np.testing.assert_allclose(output["edges"][0], again["edges"][0], atol=1e-11)
    # A loss of one part of the state has a gradient through the other.
    _check_gradient(layer, lambda z: z["edges"][0], cell.convolution.kernel)


@pytest.mark.filterwarnings(r"ignore:`build\(\)` was called")  # says Keras, of TwoScales
def test_a_nested_state_in_a_model(tmp_path):
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.Equilibrium(TwoScales(), "picard")(inputs))
    expected = model.predict(IMAGES, verbose=0)
    assert expected["image"].shape == expected["edges"][0].shape == (3, 6, 5, 1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(again["edges"][0], expected["edges"][0])


def test_a_dictionary_of_measurements():
    inputs = {"image": IMAGES, "mask": tf.ones_like(IMAGES) / 2}
    layer = _layer(ManyInputs(dtype=DTYPE))
    np.testing.assert_allclose(layer(inputs), layer.solve(inputs).value, atol=1e-11)
    symbolic = {name: keras.Input((6, 5, 1), name=name, dtype=DTYPE) for name in inputs}
    assert layer(symbolic).shape == (None, 6, 5, 1)


# Solve and its report.


def _mixed_difficulty():
    """A cell that contracts each image by its own factor."""

    @register
    class Factors(keras.layers.Layer):
        def call(self, z, y):
            return y + tf.reduce_mean(y, (1, 2, 3), keepdims=True) * z

    factors = np.array([0.1, 0.5, 0.7]).reshape(3, 1, 1, 1)
    y = factors + 0.01 * np.random.default_rng(0).normal(size=(3, 6, 5, 1))
    return Factors(dtype=DTYPE), tf.constant(y)


@pytest.mark.parametrize("solver", ["picard", "anderson"])
def test_solve_returns_a_row_for_each_image(solver):
    cell, y = _mixed_difficulty()
    layer = layers.Equilibrium(cell, solver=solver, dtype=DTYPE)
    solution = layer.solve(y)  # it was not built
    assert solution.value.shape == y.shape
    for part in (solution.residual, solution.steps, solution.converged):
        assert part.shape == (3,)
    steps = solution.steps.numpy()
    assert solution.steps.dtype == tf.int32
    assert steps[0] <= steps[1] <= steps[2]
    if solver == "picard":
        assert steps[0] < steps[1] < steps[2]
    np.testing.assert_allclose(cell(solution.value, y), layer(y), rtol=1e-12)
    graph = tf.function(lambda y: layer.solve(y), autograph=False)(y)
    np.testing.assert_array_equal(graph.steps, steps)
    np.testing.assert_allclose(graph.value, solution.value, rtol=1e-12)


def test_max_steps_and_history():
    cell, y = _mixed_difficulty()
    layer = layers.Equilibrium(cell, solver="picard", dtype=DTYPE)
    short = layer.solve(y, max_steps=7)
    assert (short.steps.numpy() <= 7).all()
    assert short.steps[2] == 7
    np.testing.assert_array_equal(short.converged, [True, False, False])
    solution = layer.solve(y, return_history=True)
    history = solution.history
    assert history.shape == (max(solution.steps.numpy()), 3)
    np.testing.assert_allclose(history[-1], solution.residual)
    np.testing.assert_allclose(short.residual, history[6], rtol=1e-9, atol=1e-15)


def test_solve_sees_new_weights_and_another_solver():
    layer = layers.Equilibrium(Cell(), dtype=DTYPE)
    before = layer.solve(IMAGES).value
    kernel = layer.cell.layer.convolution.kernel
    kernel.assign(-kernel)
    after = layer.solve(IMAGES).value
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(after, layer(IMAGES), atol=1e-4)
    steps = layer.solve(IMAGES).steps.numpy()
    layer.solver = solvers.Picard(tolerance=1e-12)
    assert (layer.solve(IMAGES).steps.numpy() > steps).all()


@pytest.mark.parametrize("kind", ["numpy", "float32", "uint8"])
def test_inputs_of_any_dtype(kind):
    images = {
        "numpy": IMAGES.numpy(),
        "float32": tf.cast(IMAGES, "float32"),
        "uint8": tf.cast(255 * IMAGES, "uint8"),
    }[kind]
    layer = layers.Equilibrium(Cell(), dtype=DTYPE)
    assert layer(images).dtype == DTYPE
    assert layer.solve(images).value.dtype == DTYPE


def test_an_image_does_not_depend_on_its_companions():
    # In float64, as kernels round differently for batches of different sizes.
    operator = operators.Identity(dtype=DTYPE)
    prior = priors.UntiedFieldsOfExperts(4, 3, sharpness=10.0, padding="zero", dtype=DTYPE)
    layer = layers.Equilibrium(layers.GradientStep(operator, prior, dtype=DTYPE), dtype=DTYPE)
    together = layer.solve(IMAGES)
    for order in ([0], [2, 1], [1, 1, 0, 2]):
        some = layer.solve(tf.gather(IMAGES, order))
        np.testing.assert_allclose(some.value, tf.gather(together.value, order), atol=1e-9)
        np.testing.assert_array_equal(some.steps, tf.gather(together.steps, order))


def test_failure_is_a_value():
    @register
    class Expanding(keras.layers.Layer):
        def call(self, z, y):
            return 3.0 * z + y

    cell = Expanding(dtype=DTYPE)
    layer = layers.Equilibrium(cell, "picard", "jacobian_free", dtype=DTYPE, name="deq")
    y = tf.concat([IMAGES[:1], tf.zeros_like(IMAGES[:1])], 0)
    solution = layer.solve(y)
    np.testing.assert_array_equal(solution.converged, [False, True])
    assert np.isfinite(solution.value).all()
    assert solution.residual[0] > 0.5
    layer(y, training=True)
    metrics = {m.name.split("_", 1)[1]: float(m.result()) for m in layer.metrics}
    assert metrics["converged"] == 0.5


def test_diagnostics_of_a_training_step():
    layer = layers.Equilibrium(Cell(), dtype=DTYPE, name="deq")
    layer(IMAGES)
    names = {m.name for m in layer.metrics}
    for direction in ("forward", "backward"):
        assert {f"deq_{direction}_steps", f"deq_{direction}_residual"} <= names
    assert {"deq_converged", "deq_backward_converged"} <= names
    values = {m.name: m for m in layer.metrics}
    assert all(np.isnan(m.result()) for m in layer.metrics), "nothing was measured in inference"
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(IMAGES, training=True) ** 2)
    solution = layer.solve(IMAGES)
    steps, residual = np.mean(solution.steps), np.mean(solution.residual)
    assert float(values["deq_forward_steps"].result()) == pytest.approx(steps)
    assert float(values["deq_forward_residual"].result()) == pytest.approx(residual, rel=1e-4)
    assert float(values["deq_converged"].result()) == 1.0
    assert np.isnan(values["deq_backward_steps"].result())
    tape.gradient(loss, layer.cell.layer.convolution.kernel.value)
    assert float(values["deq_backward_steps"].result()) > 1
    assert 0 < float(values["deq_backward_residual"].result()) <= 1e-5
    assert float(values["deq_backward_converged"].result()) == 1.0
    assert not any("deq" in v.path for v in layer.trainable_variables if "steps" in v.path)


# Keras.


def _untied():
    # Zeros beyond the border: their bound is the quickest to trace.
    prior = priors.UntiedFieldsOfExperts(3, 3, sharpness=5.0, padding="zero")
    return layers.GradientStep(operators.Identity(), prior, weight=0.3)


def test_the_defaults():
    layer = layers.Equilibrium(_untied())
    y = tf.cast(IMAGES, tf.float32)

    def chosen(layer):
        layer.build((None, None, None, 1))
        return layer.choose_solver(layer.cell.bind(y))

    assert isinstance(chosen(layer), solvers.Anderson)
    assert isinstance(layer.adjoint, adjoints.Implicit)
    assert isinstance(layer.adjoint.choose(layer.cell.bind(y)), linear_solvers.GMRES)
    tied = layers.GradientStep(operators.Identity(), priors.TotalVariation())
    assert isinstance(chosen(layers.Equilibrium(tied)), solvers.LBFGS)
    assert isinstance(chosen(layers.Equilibrium(Cell(dtype="float32"))), solvers.Anderson)


# The gradient step is also in the contract of `Variational`; untied, in integration/.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["untied", "cell"])
def test_layer_contract(kind):
    arguments = {
        "untied": {"cell": _untied(), "solver": solvers.Anderson(memory=3)},
        "cell": {"cell": CellWithoutFlag(dtype="float32"), "adjoint": adjoints.Unrolled(3)},
    }[kind]
    testing.layer_test(layers.Equilibrium, arguments, (2, 6, 7, 1), rtol=1e-4)


def test_configuration():
    linear_solver = linear_solvers.Neumann(tolerance=1e-3)
    layer = layers.Equilibrium(
        _untied(), solvers.Anderson(memory=3), adjoints.Implicit(linear_solver), name="deq"
    )
    again = layers.Equilibrium.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.solver.memory == 3
    assert again.adjoint.linear_solver.tolerance == 1e-3
    assert (
        layers.Equilibrium.from_config(layers.Equilibrium(_untied()).get_config()).solver == "auto"
    )


@pytest.mark.parametrize("cell", [_untied, lambda: CellWithoutFlag(dtype="float32"), TwoScales])
def test_it_can_be_built_in_a_graph(cell):
    layer = layers.Equilibrium(cell(), "picard")
    y = tf.cast(IMAGES, tf.float32)
    graph = tf.function(layer, autograph=False)(y)
    for a, b in zip(tf.nest.flatten(graph), tf.nest.flatten(layer(y)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert layer.trainable_weights


@pytest.mark.parametrize("direct", [True, False])
def test_mixed_precision(direct):
    y = tf.cast(IMAGES, tf.float32)
    plain = layers.Equilibrium(_untied())
    expected = plain(y)
    keras.config.set_dtype_policy("mixed_float16")
    layer = layers.Equilibrium(_untied())
    model = layer
    if not direct:
        inputs = keras.Input((None, None, 1))
        model = keras.Model(inputs, layer(inputs))
    with tf.GradientTape() as tape:
        output = model(y, training=True)
        loss = tf.reduce_sum(tf.cast(output, "float32") ** 2)
    assert output.dtype == tf.float16
    assert {w.dtype for w in layer.weights} == {"float32"}
    np.testing.assert_allclose(output, expected, atol=1e-3)
    assert layer.solve(y).converged.numpy().all(), "iterations in half precision would not"
    with tf.GradientTape() as other:
        plain_loss = tf.reduce_sum(plain(y) ** 2)
    gradients = tape.gradient(loss, [w.value for w in layer.trainable_weights])
    plain_gradients = other.gradient(plain_loss, [w.value for w in plain.trainable_weights])
    for a, b in zip(gradients, plain_gradients, strict=True):
        assert a.dtype == tf.float32
        assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: layers.Equilibrium(lambda z, y: z), ValueError, "Keras layer"),
        (lambda: layers.Equilibrium(_untied(), "andersen"), ValueError, "Did you mean 'anderson'"),
        (
            lambda: layers.Equilibrium(_untied(), adjoint="jacobianfree"),
            ValueError,
            "Did you mean 'jacobian_free'",
        ),
        (lambda: layers.Equilibrium(_untied(), 3), TypeError, "Expected a solver"),
        (lambda: layers.Equilibrium(_untied(), tolerance=3), ValueError, "Unrecognized keyword"),
    ],
)
def test_wrong_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("images", [tf.zeros((6, 5, 1)), tf.zeros((2, 6, 5))])
def test_wrong_images(images):
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        layers.Equilibrium(_untied())(images)
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        layers.Equilibrium(_untied()).solve(images)


@pytest.mark.parametrize("solve", [True, False])
def test_an_initial_value_of_another_size(solve):
    layer = layers.Equilibrium(_untied())
    with pytest.raises(ValueError, match=r"images of shape \(2, 4, 4, 1\)"):
        (layer.solve if solve else layer)(
            tf.zeros((2, 6, 5, 1)), initial_value=tf.zeros((2, 4, 4, 1))
        )


@pytest.mark.parametrize("proximal", [True, False])
def test_a_complex_measurement_of_real_images(proximal):
    operator, y = operators.Identity(), tf.complex(*[tf.ones((1, 6, 5, 1))] * 2)
    network = keras.layers.Conv2D(1, 3, padding="same")
    cell = (
        layers.ProximalStep(operator, network)
        if proximal
        else layers.GradientStep(operator, priors.TotalVariation())
    )
    with pytest.raises(ValueError, match="Identity to make real images.*complex64"):
        layers.Equilibrium(cell)(y)


HALF = {
    "layer": lambda dtype: layers.Equilibrium(keras.layers.Dense(1), dtype=dtype),
    "cell": lambda dtype: layers.ProximalStep(
        operators.Identity(dtype=dtype), keras.layers.Dense(1, dtype=dtype)
    ),
    "energy": lambda dtype: layers.Variational(
        operators.Identity(dtype=dtype), priors.TotalVariation(dtype=dtype), dtype=dtype
    ),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("everywhere", [False, True])
def test_variables_of_half_precision_are_refused_with_what_to_use(kind, dtype, everywhere):
    if everywhere:
        keras.config.set_dtype_policy(dtype)
    with pytest.raises(ValueError, match=f"of dtype='{dtype}'. Use dtype='mixed_{dtype}'"):
        HALF[kind](None if everywhere else dtype)
