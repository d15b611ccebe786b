"""Every adjoint on every structure of a cell, against back-propagation through all steps."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, solvers
from tests.adjoints.cells import CLOSED_OVER, DTYPE, IMAGES, NAMES, PICARD, make
from tests.variants import marked

STEPS = 40
GMRES = linear_solvers.GMRES(tolerance=1e-13)
UNROLLED = (adjoints.Unrolled(STEPS), PICARD)
WAYS = {
    "implicit": (adjoints.Implicit(GMRES), PICARD),
    "bicgstab": (adjoints.Implicit(linear_solvers.BiCGStab(tolerance=1e-13)), PICARD),
    "higher_order": (adjoints.Implicit(GMRES, higher_order=True), PICARD),
    "shine": (adjoints.SHINE(fallback=GMRES), solvers.Broyden(memory=5, tolerance=1e-14)),
    "recomputed": (adjoints.Unrolled(STEPS, recompute=True), PICARD),
    "neumann": (adjoints.TruncatedNeumann(STEPS), PICARD),
}


def _derivatives(name, way, graph=True):
    """Output, loss and gradients of a step of training; and the state that it leaves."""
    adjoint, solver = way
    layer = layers.Equilibrium(make(name, *way), solver, adjoint, dtype=DTYPE)
    layer.build(IMAGES.shape)
    state = [
        v for v in layer.cell.variables if v.path not in {w.path for w in layer.trainable_weights}
    ]

    def step(y):
        with tf.GradientTape() as tape:
            tape.watch((y, CLOSED_OVER))
            output = layer(y, training=True)
            # Weights of its own for each entry, so that no derivative is symmetric.
            loss = sum(
                tf.reduce_sum(
                    tf.sin(tf.range(tf.size(o), dtype=o.dtype)) * tf.reshape(o, [-1]) ** 2
                )
                for o in tf.nest.flatten(output)
            )
        sources = [y, *(w.value for w in layer.trainable_weights)]
        if name == "closed_over":
            sources.append(CLOSED_OVER)
        return loss, tape.gradient(loss, sources)

    if graph:
        step = tf.function(step, autograph=False)
    loss, gradients = step(IMAGES)
    return float(loss), gradients, [v.numpy() for v in state]


@pytest.fixture(scope="module")
def derivatives():
    """`_derivatives` of a structure and the name of a way, each made once."""
    cache = {}

    def of(name, way, graph=True):
        key = name, way, graph
        if key not in cache:
            cache[key] = _derivatives(name, UNROLLED if way == "unrolled" else WAYS[way], graph)
        return cache[key]

    return of


PAIRS = [
    (name, way)
    for name in NAMES
    for way in WAYS
    # What is closed over is refused there, see below; sums of sums take minutes to trace.
    if (name, way) not in {("closed_over", "recomputed"), ("nested", "neumann")}
]

# Each structure, but for a solve inside of a solve, which is slow to trace; and each way.
OFTEN = [
    *((name, "implicit") for name in NAMES if name != "nested"),
    ("dropout", "bicgstab"),
    ("dictionaries", "higher_order"),
    ("batch_normalisation", "shine"),
    ("spectral_normalisation", "recomputed"),
    ("layer_normalisation", "neumann"),
]


@pytest.mark.parametrize(("name", "way"), marked(PAIRS, OFTEN))
def test_training_equals_unrolled_back_propagation(name, way, derivatives):
    """Each structure and each way both in a graph and outside of one, by turns."""
    graph = (NAMES.index(name) + list(WAYS).index(way)) % 2 == 0
    loss, gradients, state = derivatives(name, way, graph)
    expected_loss, expected, expected_state = derivatives(name, "unrolled", graph=False)
    assert loss == pytest.approx(expected_loss, rel=1e-11)
    assert len(gradients) == len(expected)
    for gradient, same in zip(gradients, expected, strict=True):
        scale = np.linalg.norm(same)
        if scale > 1e-10:  # a bias has no effect before batch normalisation
            assert np.linalg.norm(gradient - same) <= 1e-9 * scale
    for ours, theirs in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("name", ["closed_over", "dictionaries"])
def test_graph_equals_eager(name, derivatives):
    _, gradients, _ = derivatives(name, "implicit")
    _, eager, _ = derivatives(name, "implicit", graph=False)
    for a, b in zip(gradients, eager, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("graph", [False, True])
def test_recomputation_refuses_what_is_closed_over(graph):
    with pytest.raises(ValueError if graph else LookupError, match="closes over"):
        _derivatives("closed_over", (adjoints.Unrolled(2, recompute=True), PICARD), graph)
