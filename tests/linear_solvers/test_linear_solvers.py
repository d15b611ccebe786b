"""Every linear solver on the systems it is for, checked against a dense solve."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import linear_solvers


def _spectrum(low, high, size=20, batch=3, seed=0):
    rng = np.random.default_rng(seed)
    matrices = []
    for _ in range(batch):
        q, _ = np.linalg.qr(rng.normal(size=(size, size)))
        matrices.append(q @ np.diag(np.linspace(low, high, size)) @ q.T)
    return np.stack(matrices), rng.normal(size=(batch, size))


def _contraction(size=20, batch=3, seed=1, factor=0.8):
    rng = np.random.default_rng(seed)
    j = rng.normal(size=(batch, size, size))
    j *= factor / np.linalg.norm(j, 2, axis=(1, 2))[:, None, None]
    return np.eye(size) - j, rng.normal(size=(batch, size))


def _general(size=20, batch=3, seed=2):
    """Nonsymmetric, not a contraction, eigenvalues on both sides of zero."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, size, size)), rng.normal(size=(batch, size))


CG, GMRES, NEUMANN = (
    linear_solvers.ConjugateGradient(tolerance=1e-10),
    linear_solvers.GMRES(tolerance=1e-10),
    linear_solvers.Neumann(tolerance=1e-10),
)
MINRES = linear_solvers.MINRES(tolerance=1e-10)
CASES = {
    "cg_definite": (CG, _spectrum(0.01, 1.0)),
    "gmres_definite": (GMRES, _spectrum(0.01, 1.0)),
    "gmres_indefinite": (GMRES, _spectrum(-1.0, 0.95)),
    "gmres_contraction": (GMRES, _contraction()),
    "gmres_general": (GMRES, _general()),
    "gmres_restarted": (
        linear_solvers.GMRES(restart=5, tolerance=1e-10),
        _contraction(factor=0.9),
    ),
    "minres_definite": (MINRES, _spectrum(0.01, 1.0)),
    "minres_indefinite": (MINRES, _spectrum(-1.0, 0.95)),
    "neumann_contraction": (NEUMANN, _contraction()),
}


def _matvec(matrices):
    constant = tf.constant(matrices)
    return lambda w: tf.linalg.matvec(constant, w)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("graph", [False, True])
def test_solves_to_the_true_residual(name, graph):
    solver, (matrices, b) = CASES[name]
    solve = lambda b: solver.solve(_matvec(matrices), b)  # noqa: E731
    solution = (tf.function(solve, autograph=False) if graph else solve)(tf.constant(b))
    assert solution.converged.numpy().all()
    w = solution.value.numpy()
    true = np.linalg.norm(b - np.einsum("bij,bj->bi", matrices, w), axis=1)
    relative = true / np.linalg.norm(b, axis=1)
    assert (relative <= 1e-10).all()
    np.testing.assert_allclose(solution.residual, relative, atol=1e-14)
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    np.testing.assert_allclose(w, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_and_companions_do_not_matter(name, scale):
    solver, (matrices, b) = CASES[name]
    reference = solver.solve(_matvec(matrices), tf.constant(b))
    b = b.copy()
    b[0] = 0.0
    b[1] *= scale
    solution = solver.solve(_matvec(matrices), tf.constant(b))
    assert solution.converged.numpy().all()
    np.testing.assert_array_equal(solution.value[0], 0.0)
    assert solution.steps[0] == 0
    np.testing.assert_allclose(solution.value[1] / scale, reference.value[1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(solution.value[2], reference.value[2], rtol=1e-12, atol=1e-12)
    assert solution.steps[2] == reference.steps[2]


def test_cg_needs_no_more_steps_than_distinct_eigenvalues():
    matrices, b = _spectrum(1.0, 1.0, size=30)
    matrices += np.eye(30) * 0.0
    solution = CG.solve(_matvec(matrices), tf.constant(b))
    assert solution.steps.numpy().max() <= 2 + 1


def test_gmres_stops_at_an_invariant_space():
    # A rotation by 90 degrees: the residual does not fall in the first step, then is zero.
    matrix = np.array([[[0.0, 1.0], [-1.0, 0.0]]])
    solution = GMRES.solve(_matvec(matrix), tf.constant([[1.0, 0.0]], tf.float64))
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value, [[0.0, 1.0]], atol=1e-12)


def test_failure_is_reported():
    indefinite, b = _spectrum(-1.0, 0.95)
    assert not CG.solve(_matvec(indefinite), tf.constant(b)).converged.numpy().any()
    growing, b = _contraction(factor=1.0)
    growing = np.eye(20) - 40 * (np.eye(20) - growing)
    solution = NEUMANN.solve(_matvec(growing), tf.constant(b))
    assert not solution.converged.numpy().any()
    assert np.isfinite(solution.value.numpy()).all()
    singular = np.zeros((3, 20, 20))
    for solver in (CG, GMRES, MINRES):
        solution = solver.solve(_matvec(singular), tf.constant(b))
        assert not solution.converged.numpy().any()
        assert np.isfinite(solution.value.numpy()).all()


def test_float32_reports_the_true_residual():
    # Condition number 1e5: recurrences in float32 claim more than is true.
    matrices, b = _spectrum(1e-5, 1.0)
    solution = linear_solvers.ConjugateGradient(tolerance=1e-6, max_steps=300).solve(
        _matvec(matrices.astype("float32")), tf.constant(b, tf.float32)
    )
    w = solution.value.numpy().astype("float64")
    true = np.linalg.norm(b - np.einsum("bij,bj->bi", matrices, w), axis=1)
    np.testing.assert_allclose(
        solution.residual, true / np.linalg.norm(b, axis=1), rtol=0.5, atol=2e-6
    )


def test_nested_right_hand_sides():
    b = {"x": tf.ones((2, 3), tf.float64), "y": tf.ones((2, 2, 2), tf.float64)}
    for solver in (CG, GMRES, MINRES, NEUMANN):
        solution = solver.solve(lambda w: tf.nest.map_structure(lambda t: 0.8 * t, w), b)
        np.testing.assert_allclose(solution.value["y"], 1.25, rtol=1e-8)
        assert solution.value["x"].shape == (2, 3)


def test_max_steps_is_a_limit():
    matrices, b = _spectrum(1e-4, 1.0, size=60)
    for solver in (
        linear_solvers.ConjugateGradient(max_steps=9),
        linear_solvers.GMRES(max_steps=9, restart=4),
        linear_solvers.MINRES(max_steps=9),
        linear_solvers.Neumann(max_steps=9),
    ):
        solution = solver.solve(_matvec(matrices), tf.constant(b))
        assert solution.steps.numpy().max() <= 9
        assert not solution.converged.numpy().any()


@pytest.mark.parametrize("solver", [CG, linear_solvers.GMRES(restart=7), MINRES, NEUMANN])
def test_config_round_trip(solver):
    again = type(solver).from_config(solver.get_config())
    assert again.get_config() == solver.get_config()
    assert getattr(again, "restart", None) == getattr(solver, "restart", None)
    assert repr(again) == repr(solver)


def test_get():
    assert isinstance(linear_solvers.get("gmres"), linear_solvers.GMRES)
    with pytest.raises(ValueError, match="Did you mean 'conjugate_gradient'"):
        linear_solvers.get("conjugate_gradients")
