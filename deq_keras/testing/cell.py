"""The test of a cell: its map, what it declares of it, and what it certifies."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.layers.cell import LayerCell
from deq_keras.numerics.jacobian import transposed_product
from deq_keras.numerics.shapes import shapes_of
from deq_keras.testing.report import (
    blame,
    check_close,
    default_rtol,
    divide,
    fail,
    inner,
    name_of,
    norm,
    normal,
    to_numpy,
)


class CellReport(NamedTuple):
    """What `cell_test` found.

    Attributes:
        asymmetry: the largest `|<a, J^T b> - <J^T a, b>|` seen, relative to the norms.
        coupling: the largest relative change of an image by other companions, in training.
        contraction: the largest `‖f(a) - f(b)‖ / ‖a - b‖` seen.
        monotonicity: the least `<(a - f(a)) - (b - f(b)), a - b> / ‖a - b‖²` seen.
    """

    asymmetry: float
    coupling: float
    contraction: float
    monotonicity: float


def cell_test(cell, y, dtype="float64", *, seed=0, rtol=None, draws: int = 3) -> CellReport:
    """Checks that a cell keeps what it declares, and that its problem belongs to its map.

    A solver and an adjoint choose by what a cell declares, so a wrong declaration makes wrong
    gradients. Checked are: `bind(y).f` and `record` equal a call; a graph equals eager execution;
    gradients of a frozen problem are stopped; `symmetric` and `couples_batch`, where they are
    declared; and of what `bind` returns: the energy and its gradient, the step that is made of it,
    the strong convexity on pairs of states near and far, and that the preconditioner is symmetric
    and positive definite.

    Args:
        cell: a `deq_keras.layers.Cell`, or any Keras layer `f(z, y)`.
        y: the measurement `(batch, ...)`, or a structure, with two images or more.
        dtype: of the state.
        seed: of the random states.
        rtol: largest relative error. By default 1e-9 in float64 and 1e-4 in float32.
        draws: number of random states for each check.

    Returns:
        A `CellReport`.

    Raises:
        AssertionError: if a check fails.

    Example:

    >>> y = tf.random.uniform((2, 12, 13, 1), dtype="float64")
    >>> prior = deq_keras.priors.TotalVariation(0.1, dtype="float64")
    >>> denoise = deq_keras.operators.Identity(dtype="float64")
    >>> cell = deq_keras.layers.GradientStep(denoise, prior, dtype="float64")
    >>> report = deq_keras.testing.cell_test(cell, y)
    """
    cell = cell if hasattr(cell, "bind") else LayerCell(cell)
    name = f"cell_test({name_of(cell)}, dtype={dtype!r})"
    rtol = default_rtol(name, rtol, dtype, {"float64": 1e-9, "float32": 1e-4})
    shapes = shapes_of(y, static=True)
    cell.ensure_built(cell.state_shape(shapes), shapes)
    test = _Test(cell, y, name, rtol, np.random.default_rng(seed), dtype, draws)
    test.map()
    test.energy()
    test.preconditioner()
    return CellReport(test.asymmetry(), test.coupling(), *test.constants())


class _Test:
    def __init__(self, cell, y, name, rtol, rng, dtype, draws):
        self.cell, self.y, self.name, self.rtol, self.rng = cell, y, name, rtol, rng
        self.dtype, self.draws = dtype, draws
        with blame(f"{name}: bind(y)", "bind does not take what a call takes."):
            self.problem = cell.bind(y)
        self.start = self.problem.initial_value

    def random(self, scale=1.0):
        """A state like the initial value."""
        return tf.nest.map_structure(
            lambda z: tf.cast(scale, z.dtype) * normal(self.rng, z.shape, z.dtype), self.start
        )

    def close(self, what, actual, expected, cause):
        for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
            check_close(f"{self.name}: {what}", a, b, self.rtol, cause)

    def map(self):
        z, cell = self.random(), self.cell
        for leaf in tf.nest.flatten(self.start):
            if leaf.dtype.name != self.dtype:
                fail(
                    f"{self.name}: the initial value has dtype {leaf.dtype.name}.",
                    f"the cell, or y, was not made with dtype={self.dtype!r}.",
                )
        f, expected = self.problem.f(z), cell.evaluate(z, self.y, None)
        self.close("bind(y).f", f, expected, "bind and call are two different maps.")
        if self.problem.record is not None:
            self.close("record", self.problem.record(z), f, "record is another map than f.")
        graph = tf.function(lambda z: cell.bind(self.y, z).f(z), autograph=False)(z)
        self.close("f in a graph", graph, f, "a value kept from another call, or randomness.")
        frozen = self.problem.frozen()
        weights = [w.value for w in cell.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            total = sum(tf.reduce_sum(x) for x in tf.nest.flatten(frozen.f(z)))
        if any(g is not None for g in tape.gradient(total, weights)):
            fail(
                f"{self.name}: a gradient passes through a frozen problem.",
                "f is no `Partial`, or its function closes over a tensor or reads a variable.",
            )

    def energy(self):
        step, z = self.problem.step, self.random()
        if step is None:
            return
        if step.gradient is not None:
            length = np.reshape(to_numpy(step.length * tf.ones(len(z), self.dtype)), (-1, 1, 1, 1))
            moved = z - tf.constant(length, z.dtype) * step.gradient(z)
            if step.proximal is not None:
                moved = step.proximal(moved, tf.constant(length.ravel(), z.dtype))
            self.close("f", self.problem.f(z), moved, "f is not the step that `step` describes.")
        if step.energy is None or step.gradient is None or step.proximal is not None:
            return
        with tf.GradientTape() as tape:
            tape.watch(z)
            energy = step.energy(z)
        if tuple(energy.shape) != (len(z),):
            fail(f"{self.name}: energy of shape {energy.shape}.", "a sum over too many axes.")
        self.close(
            "step.gradient",
            step.gradient(z),
            tape.gradient(energy, z),
            "the gradient of another energy: a weight, a factor or an adjoint.",
        )

    def asymmetry(self):
        """Of the Jacobian; refused if the cell says that it is symmetric."""
        worst = 0.0
        for _ in range(self.draws):
            z, a, b = (self.random() for _ in range(3))
            product = transposed_product(self.problem.f, z)
            from_a, from_b = product(a), product(b)
            left, right = _inner(a, from_b), _inner(from_a, b)
            scale = _norm(a) * _norm(from_b) + _norm(from_a) * _norm(b)
            worst = max(worst, float(divide(np.abs(left - right), scale).max()))
        if self.cell.symmetric and not worst <= 1e2 * self.rtol:
            fail(
                f"{self.name}: the cell declares symmetric=True, but its Jacobian differs from its "
                f"transpose by {worst:.1e}.",
                "weights that are tied at the start only, or a wrong adjoint. Declare False.",
            )
        return worst

    def coupling(self):
        """Of the images of a batch in training; refused if the cell says that there is none."""
        z = self.random()
        other = tf.nest.map_structure(lambda x: tf.concat([x[:1], -2.0 * x[1:]], 0), z)
        state = [(v, tf.convert_to_tensor(v)) for v in self.cell.variables]
        found = []
        for point in (z, other):
            with keras.StatelessScope(state_mapping=state):
                result = self.cell.evaluate(point, self.y, True)
            found.append(np.concatenate([np.ravel(x[0]) for x in tf.nest.flatten(result)]))
        change = float(np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[0]))
        if self.cell.couples_batch is False and not change <= 1e2 * self.rtol:
            fail(
                f"{self.name}: the cell declares couples_batch=False, but in training an image "
                f"changes by {change:.1e} with its companions.",
                "batch normalisation, or a mean over the batch. Declare True.",
            )
        return change

    def constants(self):
        """The contraction factor and the monotonicity seen; refused if less than certified."""
        stated = self.problem.strong_convexity
        stated = None if stated is None else to_numpy(stated)
        worst, least = 0.0, np.inf
        for scale in (1e-3, 0.1, 1.0, 10.0) * self.draws:
            a = self.random()
            b = tf.nest.map_structure(tf.add, a, self.random(scale))
            for _ in range(3):  # towards pairs that are contracted most
                fa, fb = self.problem.f(a), self.problem.f(b)
                difference = tf.nest.map_structure(tf.subtract, a, b)
                image = tf.nest.map_structure(tf.subtract, fa, fb)
                square = _inner(difference, difference)
                modulus = 1.0 - divide(_inner(image, difference), square)
                worst = max(worst, float(np.sqrt(divide(_inner(image, image), square)).max()))
                least = min(least, float(modulus.min()))
                slack = 1e-6 if self.dtype == "float64" else 1e-3
                if stated is not None and not np.all(modulus >= stated - slack):
                    fail(
                        f"{self.name}: strong_convexity is {stated}, but for two states "
                        f"<(a - f(a)) - (b - f(b)), a - b> / ‖a - b‖² is {modulus.min():.6g}.",
                        "an operator's smallest singular value, a prior's modulus, or the step.",
                    )
                a, b = fa, fb
                if np.any(_inner(image, image) == 0):
                    break
        return worst, least

    def preconditioner(self):
        if self.problem.preconditioner is None:
            return
        precondition = self.problem.preconditioner(self.random())
        a, b = self.random(), self.random()
        left, right = _inner(a, precondition(b)), _inner(precondition(a), b)
        asymmetry = np.abs(left - right) / (_norm(a) * _norm(precondition(b)))
        if not asymmetry.max() <= 1e2 * self.rtol or not (_inner(a, precondition(a)) > 0).all():
            fail(
                f"{self.name}: the preconditioner is not symmetric and positive definite.",
                "a spectrum that is negative or not even, or a scaling on one side only.",
            )


def _inner(a, b):
    pairs = zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
    return sum(inner(x, y) for x, y in pairs)


def _norm(a):
    return np.sqrt(sum(norm(x) ** 2 for x in tf.nest.flatten(a)))
