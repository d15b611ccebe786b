"""The preconditioner as the initial inverse Hessian of L-BFGS."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, solvers
from deq_keras.numerics import Partial
from deq_keras.problems import Preconditioner

SIZE = 40


def curvatures(count=2):
    rng = np.random.default_rng(0)
    return tf.constant(10.0 ** rng.uniform(0, 3, (count, SIZE)))


def quadratic(h, guess=None, target=1.0, hidden=False):
    """`sum(h (u - target)^2) / 2` for each row, with `1 / guess` as preconditioner."""
    length = tf.constant(1e-3, h.dtype)  # of the largest curvature that `curvatures` draws

    def gradient(u, h):
        return h * (u - target)

    preconditioner = None
    if guess is not None:
        prepare = Partial(lambda z, guess: (length * guess,), (), (guess,))
        preconditioner = Preconditioner(
            (lambda z: prepare(z)) if hidden else prepare, lambda w, size: w / size
        )
    return solvers.Problem(
        Partial(lambda u, h: u - length * gradient(u, h), (), (h,)),
        initial_value=tf.zeros_like(h),
        step=solvers.Step(
            Partial(lambda u, h: 0.5 * tf.reduce_sum(h * (u - target) ** 2, 1), (), (h,)),
            length,
            Partial(gradient, (), (h,)),
        ),
        symmetric=True,
        convex=True,
        preconditioner=preconditioner,
    )


def dear(h, guess):
    """With a preconditioner that is not cheap."""
    problem = quadratic(h, guess)
    return problem._replace(preconditioner=problem.preconditioner._replace(is_cheap=False))


def uncarried(h):
    """With a function in the place of a preconditioner."""
    return quadratic(h)._replace(preconditioner=lambda z: lambda w: w / h)


@functools.cache
def _graph(build, count, options):
    solver = solvers.LBFGS(tolerance=1e-9, **dict(options))
    spec = tf.TensorSpec([None, SIZE], tf.float64)
    return tf.function(
        lambda *data: solver.solve(build(*data)), input_signature=[spec] * count, autograph=False
    )


def solve(build, *data, **options):
    """The solution of `build(*data)`, in a graph that is traced once."""
    return _graph(build, len(data), tuple(options.items()))(*data)


def steps(build, *data, **options):
    found = solve(build, *data, **options)
    assert found.converged.numpy().all()
    np.testing.assert_allclose(found.value, tf.ones_like(found.value), atol=1e-6)
    return found.steps.numpy()


def test_the_exact_inverse_takes_one_step():
    h = curvatures()
    assert (steps(quadratic, h, h) == 2).all()
    assert (steps(quadratic, h, h, precondition=False) > 20).all()


def test_a_near_inverse_saves_half_of_the_steps():
    h = curvatures()
    rough = h * tf.exp(tf.constant(np.random.default_rng(1).normal(0, 0.3, h.shape)))
    with_it, without = steps(quadratic, h, rough), steps(quadratic, h, rough, precondition=False)
    assert (2 * with_it <= without).all()


def test_a_bad_one_costs_little():
    """What is far from the inverse is soon left alone, for each image by itself."""
    h = curvatures()
    bad = tf.concat([1.0 / h[:1], h[1:]], 0)  # of the first image the inverse of what is wanted
    with_it, without = steps(quadratic, h, bad), steps(quadratic, h, bad, precondition=False)
    assert with_it[0] <= 1.4 * without[0]
    assert with_it[1] == 2


@pytest.mark.parametrize("compact", [False, True])
def test_an_image_does_not_depend_on_its_companions(compact):
    h = curvatures(3)
    noise = tf.constant(np.random.default_rng(2).normal(0, 1.0, h.shape))
    guess = h * tf.exp(noise * tf.constant([[0.1], [0.6], [1.5]], tf.float64))
    together = solve(quadratic, h, guess, compact=compact)
    for k in range(3):
        alone = solve(quadratic, h[k : k + 1], guess[k : k + 1], compact=compact)
        assert int(alone.steps[0]) == int(together.steps[k])
        np.testing.assert_allclose(alone.value[0], together.value[k], rtol=1e-12)


def test_it_is_computed_anew_after_eight_evaluations_and_twice_as_many():
    h, calls = curvatures(), []
    problem = quadratic(h, h**0.5)

    def prepare(z):
        calls.append(z)
        return (h**0.5,)

    problem = problem._replace(preconditioner=Preconditioner(prepare, lambda w, size: w / size))
    found = solvers.LBFGS(tolerance=1e-9).solve(problem, max_steps=20)
    assert found.steps.numpy().tolist() == [20, 20]
    assert len(calls) == 3  # at the start, and with the evaluations 8 and 16
    assert not np.allclose(calls[0], calls[1])


def test_the_direction_is_minus_the_inverse_hessian_times_the_gradient():
    """The secant equation holds with the preconditioner, and the estimate stays symmetric."""
    from deq_keras.solvers.lbfgs import _two_loops

    h = curvatures()
    problem = quadratic(h, h**0.8)
    solver = solvers.LBFGS(memory=4)
    state = solver.init(problem, problem.initial_value)
    for _ in range(5):
        state = solver.step(problem, state)
    assert state.metric.preferred.numpy().all()

    def inverse(w):
        carried = state.metric.carried
        carried = carried._replace(moved=problem.preconditioner.apply(w, *carried.factors))
        found = state.metric._replace(carried=carried)
        return -_two_loops(w, state.s, state.y, state.rho, state.scale, found)

    np.testing.assert_allclose(inverse(state.y[0]), state.s[0], rtol=1e-9, atol=1e-12)
    rng = np.random.default_rng(3)
    a, b = (tf.constant(rng.normal(size=h.shape)) for _ in range(2))
    left, right = (tf.reduce_sum(x * inverse(y), 1) for x, y in ((a, b), (b, a)))
    np.testing.assert_allclose(left, right, rtol=1e-9)
    assert (tf.reduce_sum(a * inverse(a), 1).numpy() > 0).all()


def test_only_a_cheap_one_is_used_unless_asked_for():
    h = curvatures()
    np.testing.assert_array_equal(steps(dear, h, h), steps(quadratic, h))
    assert (steps(dear, h, h, precondition=True) == 2).all()
    identity = operators.Identity()
    cheap = {}
    for name, prior in {
        "tv": priors.TotalVariation(),
        "few": priors.FieldsOfExperts(2, 3),
        "many": priors.FieldsOfExperts(24, 5),
    }.items():
        layer = layers.Variational(identity, prior)
        layer.build((None, 16, 16, 1))
        cheap[name] = layer.cell.bind(tf.zeros((1, 16, 16, 1))).preconditioner.is_cheap
    assert cheap == {"tv": False, "few": False, "many": True}


def test_a_function_that_cannot_be_carried_is_left_alone():
    h = curvatures()
    np.testing.assert_array_equal(steps(uncarried, h), steps(quadratic, h))


def test_compaction_asks_for_rows():
    h = curvatures()
    problem = quadratic(h, h, hidden=True)
    with pytest.raises(ValueError, match="expected a preconditioner whose rows it can take"):
        solvers.LBFGS(compact=True).solve(problem)
    without = solvers.LBFGS(compact=True, precondition=False)
    assert without.solve(problem, max_steps=3).steps.numpy().tolist() == [3, 3]


def test_within_and_config():
    solver = solvers.LBFGS()
    assert solver.within(precondition=False).precondition is False
    assert solver.within(1e-3).precondition == "auto"
    assert solvers.LBFGS(precondition=False).within(precondition=True).precondition is False
    with pytest.raises(ValueError, match="'auto', True or False"):
        solvers.LBFGS(precondition="always")
    again = solvers.LBFGS.from_config(solvers.LBFGS(precondition=False).get_config())
    assert again.precondition is False
    with layers.observe(precondition=False) as observation:
        assert observation.limited(solver).precondition is False


@pytest.mark.parametrize(
    "kind", [pytest.param("denoising", marks=pytest.mark.slow), "deconvolution"]
)
def test_it_saves_a_quarter_of_the_evaluations_of_energies(kind):
    rows, columns = np.mgrid[:32, :32] / 32.0
    image = np.where(rows + 0.5 * columns > 0.7, 0.8, 0.2) + 0.1 * np.sin(6 * rows)
    truth = tf.constant(np.stack([image, image.T])[..., None])
    operator = {
        "deconvolution": operators.GaussianBlur(5, 1.2, dtype="float64"),
        "denoising": operators.Identity(dtype="float64"),
    }[kind]
    weight = {"deconvolution": 0.02, "denoising": 0.3}[kind]
    prior = priors.FieldsOfExperts(8, 3, sharpness=200.0, dtype="float64")
    noise = 0.05 * np.random.default_rng(0).normal(size=truth.shape)
    found = []
    for precondition in (True, False):
        solver = solvers.LBFGS(tolerance=1e-7, precondition=precondition)
        layer = layers.Variational(operator, prior, weight, solver=solver, dtype="float64")
        found.append(layer.solve(operator(truth) + noise))
        assert found[-1].converged.numpy().all()
    np.testing.assert_allclose(found[0].value, found[1].value, atol=1e-5)
    assert np.mean(found[0].steps) <= 0.75 * np.mean(found[1].steps)
