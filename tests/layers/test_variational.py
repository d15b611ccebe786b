"""The variational layer: its output is the minimiser, checked against what is known otherwise."""

from itertools import product

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deq_keras import layers, linear_solvers, operators, priors, solvers, testing
from tests.variants import covering, marked

HEIGHT, WIDTH = 16, 14
OPERATORS = {
    "denoising": lambda **kw: operators.Identity(**kw),
    "blur": lambda **kw: operators.GaussianBlur(5, 0.6, **kw),
    "inpainting": lambda **kw: operators.Mask(
        operators.random_mask((HEIGHT, WIDTH), keep=0.6, seed=3), **kw
    ),
}
# Another border with each operator; the bound for a reflected one takes the longest to trace.
PADDINGS = {"denoising": "circular", "blur": "zero", "inpainting": "reflect"}
OFTEN = ["denoising", "blur"]
PRIORS = {
    "experts": lambda **kw: priors.FieldsOfExperts(4, 3, sharpness=20.0, **kw),
    "total_variation": lambda **kw: priors.TotalVariation(0.2, **kw),
}


def _images(seed=0, shape=(3, HEIGHT, WIDTH, 1), dtype="float32"):
    """Smooth images with an edge, on [0, 1]: one bright, one dark, one of other structure."""
    rows, columns = np.linspace(0, 1, shape[1])[:, None], np.linspace(0, 1, shape[2])[None]
    images = np.stack(
        [(0.3 + 0.2 * np.sin(5 * rows + k) + 0.4 * (columns > 0.3 + 0.2 * k)) for k in range(3)]
    )
    images *= np.array([1.0, 0.05, 0.7])[:, None, None]
    noise = 0.03 * np.random.default_rng(seed).normal(size=shape)
    return tf.constant(images[: shape[0], ..., None] + noise, dtype)


def _layer(operator="denoising", prior="experts", dtype="float32", weight=0.1, **kwargs):
    padding = {"padding": PADDINGS[operator]} if prior == "experts" else {}
    parts = OPERATORS[operator](dtype=dtype), PRIORS[prior](dtype=dtype, **padding)
    return layers.Variational(*parts, weight=weight, dtype=dtype, **kwargs)


def _built(layer):
    """Images for a layer, which is built: graphs of others are traced twice."""
    y = _images()
    layer.build(y.shape)
    return y


def _norm(images):
    return np.sqrt((np.asarray(images, "float64") ** 2).sum((1, 2, 3)))


@pytest.mark.parametrize(("prior", "operator"), covering(product(PRIORS, OPERATORS)))
def test_optimality_in_float32_with_the_defaults(operator, prior):
    layer, exact = _layer(operator, prior), _layer(operator, prior, "float64")
    y = layer.operator(_images())
    solution = layer.solve(y)
    assert solution.converged.numpy().all()
    # The gradient in float64: what is checked is the image, not a residual that rounds alike.
    y = tf.cast(y, tf.float64)
    gradient = exact.energy_gradient(tf.cast(solution.value, tf.float64), y)
    relative = _norm(gradient) / _norm(exact.operator.adjoint(y))
    assert (relative <= 1.05e-5).all()
    np.testing.assert_allclose(solution.residual, relative, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("operator", marked(OPERATORS, OFTEN))
def test_the_output_is_the_minimiser_of_scipy(operator):
    tight = solvers.Nesterov(tolerance=1e-12, max_steps=20000)
    layer = _layer(operator, dtype="float64", solver=tight)
    y = layer.operator(_images(dtype="float64"))
    layer.build(y.shape)
    solution = tf.function(layer.solve, autograph=False)(y).value

    any_batch = [tf.TensorSpec((None, HEIGHT, WIDTH, 1), "float64")] * 3

    @tf.function(input_signature=any_batch, autograph=False)
    def derivatives(u, d, y):
        """The energy of images by its own definition, and automatic derivatives of it."""
        with tf.GradientTape() as outer:
            outer.watch(u)
            with tf.GradientTape() as tape:
                tape.watch(u)
                energy = layer.energy(u, y)
            gradient = tape.gradient(energy, u)
            product = tf.reduce_sum(gradient * d)
        return energy, gradient, outer.gradient(product, u)

    for i in range(2):
        one = y[i : i + 1]

        def at(x, d=None, one=one):
            x, d = (tf.reshape(t, one.shape) for t in (x, x if d is None else d))
            return [np.ravel(t) for t in derivatives(x, d, one)]

        found = scipy.optimize.minimize(
            lambda x: at(x)[0][0],
            np.zeros(HEIGHT * WIDTH),
            jac=lambda x: at(x)[1],
            hessp=lambda x, d: at(x, d)[2],
            method="Newton-CG",
            options={"xtol": 1e-14, "maxiter": 200},
        )
        # From there on energies differ by rounding alone, and its line search ends. A last step of
        # Newton's method needs none.
        assert np.linalg.norm(found.jac) <= 1e-7
        pixels = len(found.x)
        directions = tf.reshape(tf.eye(pixels, dtype="float64"), (pixels, HEIGHT, WIDTH, 1))
        copies = [tf.repeat(tf.reshape(t, one.shape), pixels, axis=0) for t in (found.x, one)]
        hessian = np.reshape(derivatives(copies[0], directions, copies[1])[2], (pixels, pixels))
        minimiser = found.x - np.linalg.solve(hessian, found.jac)
        np.testing.assert_allclose(solution[i].numpy().ravel(), minimiser, atol=2e-8)
        assert float(layer.energy(solution, y)[i]) <= found.fun * (1 + 1e-12)


def test_a_quadratic_energy_has_a_closed_form():
    """phi(t) = t^2 / 2: the minimiser and its derivative by lambda by dense linear algebra."""
    prior = priors.AffineExperts(9, "identity", sharpness=3.0, use_bias=False, dtype="float64")
    layer = layers.Variational(
        operators.Identity(dtype="float64"),
        prior,
        weight=0.4,
        solver=solvers.Nesterov(tolerance=1e-13),
        adjoint="implicit",
        dtype="float64",
    )
    layer.adjoint.linear_solver = linear_solvers.ConjugateGradient(tolerance=1e-13)
    y = tf.constant(np.random.default_rng(0).uniform(size=(2, 5, 4, 1)))
    with tf.GradientTape() as tape:
        u = layer(y)
        loss = 0.5 * tf.reduce_sum(u**2)
    a = prior.coefficients().analysis.numpy()
    curvature = 3.0 * a @ a.T
    hessian = np.eye(20) + 0.4 * curvature
    flat = y.numpy().reshape(2, 20)
    expected = np.linalg.solve(hessian, flat.T).T
    np.testing.assert_allclose(u.numpy().reshape(2, 20), expected, atol=1e-12)
    # d loss / d log lambda = -lambda <(I + lambda C)^{-1} u, C u>
    adjoint = np.linalg.solve(hessian, expected.T).T
    derivative = -0.4 * np.einsum("bi,ij,bj->", adjoint, curvature, expected)
    assert float(tape.gradient(loss, layer.cell.log_weight.value)) == pytest.approx(derivative)


def test_it_is_the_equilibrium_of_gradient_steps():
    y = _images()
    variational = _layer()
    prior = PRIORS["experts"](padding=PADDINGS["denoising"])
    cell = layers.GradientStep(OPERATORS["denoising"](), prior, weight=0.1)
    equilibrium = layers.Equilibrium(cell)
    outputs, gradients = [], []
    for layer in (variational, equilibrium):
        with tf.GradientTape() as tape:
            tape.watch(y)
            outputs.append(layer(y))
            loss = tf.reduce_sum(outputs[-1] ** 2)
        gradients.append(tape.gradient(loss, [y, *(w.value for w in layer.trainable_weights)]))
    np.testing.assert_array_equal(*outputs)
    assert [w.name for w in variational.weights] == [w.name for w in equilibrium.weights]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_energy_and_its_gradient():
    layer, y = _layer("blur", dtype="float64"), _images(dtype="float64")
    u = y + 0.1 * _images(1, dtype="float64")
    energy = layer.energy(u, y)  # before the layer was called
    assert energy.shape == (3,)
    np.testing.assert_array_equal(energy, layer.cell.energy(u, y))
    testing.gradient_test(lambda u: layer.energy(u, y), u)
    with tf.GradientTape() as tape:
        tape.watch(u)
        value = layer.energy(u, y)
    np.testing.assert_allclose(layer.energy_gradient(u, y), tape.gradient(value, u), atol=1e-12)
    minimiser = layer(y)
    rng = np.random.default_rng(0)
    for size in (1e-3, 0.1):
        other = minimiser + size * rng.normal(size=y.shape)
        assert (layer.energy(other, y).numpy() > layer.energy(minimiser, y).numpy()).all()
    fresh = _layer("blur", dtype="float64")
    np.testing.assert_array_equal(fresh.energy_gradient(u.numpy(), y.numpy()).shape, y.shape)


@pytest.mark.parametrize("operator", marked(OPERATORS, OFTEN))
def test_an_image_does_not_depend_on_its_companions(operator):
    layer = _layer(operator)
    y = layer.operator(_images())
    layer.build(y.shape)
    any_batch = [tf.TensorSpec((None, *y.shape[1:]), y.dtype)]
    solve = tf.function(layer.solve, input_signature=any_batch, autograph=False)
    together = solve(y)
    for order in ([0], [1], [2, 0], [1, 1, 2]):
        some = solve(tf.gather(y, order))
        difference = _norm(some.value - tf.gather(together.value, order))
        assert (difference <= 1e-6 * _norm(tf.gather(together.value, order))).all()
        np.testing.assert_array_equal(some.converged, True)


def test_masks_as_data_equal_one_mask():
    mask = operators.random_mask((HEIGHT, WIDTH), keep=0.6, seed=3)
    solver = solvers.Nesterov(max_steps=10)  # as far as that they are to be equal
    one = _layer("inpainting", solver=solver)
    y = one.operator(_images())
    prior = PRIORS["experts"](padding=PADDINGS["inpainting"])
    data = layers.Variational(operators.Mask(), prior, solver=solver)
    masks = tf.constant(np.broadcast_to(mask[None, ..., None], y.shape), tf.float32)
    np.testing.assert_array_equal(data((y, masks)), one(y))
    np.testing.assert_array_equal(data.solve([y, masks]).value, one.solve(y).value)
    energies = data.energy(y, (y, masks)), one.energy(y, y)
    np.testing.assert_array_equal(*energies)
    gradients = data.energy_gradient(y, (y, masks)), one.energy_gradient(y, y)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("operator", marked(OPERATORS, OFTEN))
def test_a_black_image_stays_black_beside_others(operator):
    layer = _layer(operator)
    y = tf.concat([layer.operator(_images()[:1]), tf.zeros((1, HEIGHT, WIDTH, 1))], 0)
    solution = layer.solve(y)
    assert solution.converged.numpy().all()
    assert solution.steps[1] < solution.steps[0], "each image stops by itself"
    np.testing.assert_allclose(solution.value[1], 0, atol=1e-7)
    with tf.GradientTape() as tape:
        tape.watch(y)
        loss = tf.reduce_sum((layer(y) - 1.0) ** 2)
    assert np.isfinite(tape.gradient(loss, y)).all()


def test_a_broken_image_is_refused_or_reported_and_alone():
    layer = _layer()
    y = _built(layer)
    broken = tf.concat([y[:1], tf.fill((1, HEIGHT, WIDTH, 1), float("nan")), y[2:]], 0)
    with pytest.raises(ValueError, match=r"finite pixels.*images \[1\]"):
        layer.solve(broken)
    solve = tf.function(layer.solve, autograph=False)
    solution, whole = solve(broken), solve(y)
    np.testing.assert_array_equal(solution.converged, [True, False, True])
    for i in (0, 2):
        np.testing.assert_allclose(solution.value[i], whole.value[i], atol=1e-6)
        assert solution.steps[i] == whole.steps[i]


def test_a_batch_of_no_images():
    """A replica may get none of the last batch. (TensorFlow's convolution cannot take it.)"""
    layer, none = _layer("blur", "total_variation"), tf.zeros((0, HEIGHT, WIDTH, 1))
    with tf.GradientTape() as tape:
        output = layer(none, training=True)
        loss = tf.reduce_sum(output)
    assert output.shape == none.shape
    for gradient in tape.gradient(loss, [w.value for w in layer.trainable_weights]):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("prior", PRIORS)
def test_lambda_goes_from_the_measurement_to_smoother_images_of_the_same_mean(prior):
    layer, prior_energies = _layer(prior=prior), []
    y = _built(layer)
    solve = tf.function(layer.solve, autograph=False)
    for weight in (1e-5, 0.01, 0.1, 1.0):
        layer.cell.log_weight.assign(np.log(weight))
        u = solve(y).value
        prior_energies.append(layer.prior.energy(u).numpy())
        np.testing.assert_allclose(tf.reduce_mean(u, (1, 2)), tf.reduce_mean(y, (1, 2)), atol=1e-5)
        if weight == 1e-5:
            np.testing.assert_allclose(u, y, atol=1e-3)
    assert (np.diff(prior_energies, axis=0) < 0).all()


def test_colour():
    y = tf.concat([_images(), 0.5 * _images(1), _images(2)], -1)
    layer = layers.Variational(operators.Identity(), priors.FieldsOfExperts(6, 3))
    solution = layer.solve(y)
    assert solution.value.shape == y.shape
    assert solution.converged.numpy().all()


def test_the_defaults():
    layer = _layer()
    problem = layer.cell.bind(_built(layer))
    assert isinstance(layer.choose_solver(problem), solvers.LBFGS)
    assert isinstance(layer.adjoint.choose(problem), linear_solvers.ConjugateGradient)
    assert problem.symmetric
    assert problem.convex


# The default solver and adjoint in `fit` and files: tests/integration/test_keras_workflow.py.
@pytest.mark.parametrize("operator", ["denoising", pytest.param("blur", marks=pytest.mark.slow)])
def test_layer_contract(operator):
    arguments = {
        # Well conditioned, or rounding would be amplified between a graph and no graph.
        "operator": operators.GaussianBlur(3, 0.4) if operator == "blur" else OPERATORS[operator](),
        "prior": priors.FieldsOfExperts(3, 3, sharpness=5.0, padding=PADDINGS[operator]),
        "weight": 0.3,
        "train_weight": operator == "denoising",
        "step_size": None if operator == "denoising" else 0.3,
        "solver": solvers.Nesterov() if operator == "denoising" else "auto",
        "adjoint": "jacobian_free" if operator == "denoising" else "implicit",
    }
    testing.layer_test(layers.Variational, arguments, (2, 6, 7, 1), rtol=1e-4)


def test_configuration():
    solver = solvers.Nesterov(max_steps=3)
    layer = _layer(weight=0.03, train_weight=False, step_size=0.5, solver=solver, name="lower")
    config = layer.get_config()
    assert "cell" not in config
    again = layers.Variational.from_config(config)
    assert again.get_config() == config
    assert again.name == "lower"
    assert again.cell.weight == 0.03
    assert not again.cell.train_weight
    np.testing.assert_array_equal(again(_images()), layer(_images()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_everything_has_the_dtype_of_the_layer(dtype):
    layer = _layer(dtype=dtype, solver=solvers.Nesterov(max_steps=3))
    y = _images(dtype="float64").numpy()
    assert layer(y).dtype == dtype
    assert layer.solve(y).value.dtype == dtype
    assert layer.energy(y, y).dtype == dtype
    assert {w.dtype for w in layer.weights} == {dtype}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"prior": priors.UntiedFieldsOfExperts(3, 3)}, "with an energy.*Equilibrium"),
        ({"prior": "tv"}, "`prior` to be a `priors.Prior`"),
        ({"operator": None}, "`operator` to be a `operators.LinearOperator`"),
        ({"weight": -1.0}, "`weight`"),
        ({"solver": "nestorov"}, "Did you mean 'nesterov'"),
        ({"adjoint": "implicite"}, "Did you mean 'implicit'"),
        ({"regularisation": 1.0}, "Unrecognized keyword arguments"),
        ({"dtype": "float64"}, "one dtype"),
    ],
)
def test_wrong_arguments(arguments, match):
    parts = {"operator": operators.Identity(), "prior": priors.TotalVariation()}
    with pytest.raises(ValueError, match=match):
        layers.Variational(**{**parts, **arguments})


@pytest.mark.parametrize("method", ["__call__", "solve"])
@pytest.mark.parametrize("built", [False, True])
def test_wrong_images(method, built):
    layer, y = _layer(), _images()
    if built:
        _built(layer)
    run = getattr(layer, method)
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        run(y[0])
    with pytest.raises(ValueError, match="Received 3 tensors"):
        run([y, y, y])
    with pytest.raises(ValueError, match="takes no per-image data"):
        run([y, y])
    if built:
        with pytest.raises(ValueError, match="built for 1 channels"):
            run(tf.concat([y, y], -1))


def test_wrong_symbolic_images():
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        _layer()(keras.Input((8, 8)))
