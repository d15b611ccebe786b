"""The equilibrium layer: `z* = cell(z*, y)`."""

import inspect
import weakref

import keras
import tensorflow as tf

from deq_keras import adjoints, solvers
from deq_keras.adjoints import FixedPointProblem
from deq_keras.layers.calling import InitialState, WithTraining, call_cell, first_shape, symbolic
from deq_keras.layers.cells import deserialise

# Compiled `solve` of each layer. Kept outside of the layers, where an export would save it.
_COMPILED = weakref.WeakKeyDictionary()


@keras.saving.register_keras_serializable(package="deq_keras")
class Equilibrium(keras.layers.Layer):
    """Deep equilibrium layer: maps `y` to the fixed point `z* = cell(z*, y)`.

    The fixed point is found by a solver without recording anything; derivatives pass through it
    by the implicit function theorem (`deq_keras.adjoints`), so memory does not grow with the number
    of iterations. Every image of a batch stops by itself.

    In training the layer reports, as metrics that `fit` shows and logs, the mean number of forward
    and backward steps, the relative residuals, and the share of images that converged: an implicit
    gradient at a point that is no fixed point is wrong.

    Args:
        cell: Keras layer or model called as `cell(z, y)` (or `cell([z, y])` if its `call` takes one
            argument) that returns a tensor like `z`; a row of it may depend on the same row of `z`
            and `y` only. If it has the method `bind(y)`, that is used instead: see `GradientStep`.
            Optional methods: `initial_state(y)` (default: zeros like `y`), `reference(y)` and
            `modulus(y)` (see `deq_keras.solvers.Solver.solve`).
        solver: `"anderson"`, `"nesterov"`, `"picard"`, a `deq_keras.solvers.Solver`, or `"auto"`:
            Nesterov for a gradient step on a convex energy, Anderson otherwise.
        adjoint: `"implicit"`, `"jacobian_free"`, `"unrolled"` or a `deq_keras.adjoints.Adjoint`.

    Call arguments:
        inputs: The measurement `y`, `(batch, height, width, channels)` on [0, 1], or what the cell
            takes in its place (for a `GradientStep`, also a pair `(y, data)`).
        training: Passed on to the cell.

    Returns:
        The cell evaluated at the solution.

    Reference:
        Bai, Kolter and Koltun, Deep equilibrium models, NeurIPS 2019; Gilton, Ongie and Willett,
        Deep equilibrium architectures for inverse problems in imaging, IEEE TCI 2021.

    Example:

    >>> prior = deq_keras.priors.UntiedFieldsOfExperts(filters=8, kernel_size=5)
    >>> cell = deq_keras.layers.GradientStep(deq_keras.operators.Identity(), prior)
    >>> layer = deq_keras.layers.Equilibrium(cell)
    >>> layer(tf.random.uniform((2, 32, 32, 1))).shape
    TensorShape([2, 32, 32, 1])
    """

    def __init__(self, cell, solver="auto", adjoint="implicit", **kwargs):
        # Solves run in the variables' dtype, also under a mixed precision policy.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(cell, keras.layers.Layer):
            raise ValueError(f"Expected `cell` to be a Keras layer. Received {cell!r}.")
        self.cell = cell
        self.solver = solver if solver == "auto" else solvers.get(solver)
        self.adjoint = adjoints.get(adjoint)
        # XLA makes convolution loops on a CPU several times slower.
        self.supports_jit = False
        self._diagnostics = {
            name: Diagnostic(name=f"{self.name}_{name}")
            for name in (
                "forward_steps",
                "forward_residual",
                "converged",
                "backward_steps",
                "backward_residual",
                "backward_converged",
            )
        }

    def build(self, input_shape):
        if not hasattr(self.cell, "bind"):
            # A symbolic call builds layers and models of any kind, also what is left unbuilt in a
            # loaded cell that has no `build` of its own.
            y = symbolic(input_shape, self.variable_dtype)
            call_cell(self.cell, self._symbolic_state(y), y, None)
        elif not self.cell.built:
            shapes = (first_shape(input_shape), input_shape)
            self.cell.build(*shapes[: len(inspect.signature(self.cell.build).parameters)])
        self.built = True

    def call(self, inputs, training=None):
        if self.compute_dtype == self.variable_dtype:
            return self._fixed_point(inputs, training)
        # A direct call under mixed precision would cast the weights: a layer without one does not.
        inner = WithTraining(lambda y: self._fixed_point(y, training), dtype=self.variable_dtype)
        return inner(inputs, training=training)

    def _fixed_point(self, inputs, training):
        y = self._cast(inputs)
        report = self._report_backward if training else None
        output, solution = self.adjoint.solve(
            self._problem(y, training), self._initial_state(y), self._solver(), report
        )
        if training:
            self._record("forward", solution)
        return tf.nest.map_structure(lambda z: tf.cast(z, self.compute_dtype), output)

    def solve(self, inputs, training=False, max_steps=None, return_history=False):
        """Find the fixed point and say how well: nothing is differentiated.

        Args:
            inputs: As in a call.
            training: As in a call.
            max_steps: Largest number of evaluations of the cell, in place of the solver's.
            return_history: Return `(solution, residuals)`; see `deq_keras.solvers.Solver.solve`.

        Returns:
            `deq_keras.solvers.Solution(value, residual, steps, converged)`, a row per image.

        Raises:
            ValueError: If an input holds NaN or infinite values (outside of graphs, where such an
                image has `converged=False`).
        """
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        _check_finite(inputs)
        self._ensure_built(inputs)
        limit = tf.constant(self._solver().max_steps if max_steps is None else max_steps)
        if not tf.executing_eagerly():
            return self._solve(inputs, training, limit, return_history)
        if self not in _COMPILED:
            layer = weakref.ref(self)
            _COMPILED[self] = tf.function(
                lambda _, *args: layer()._solve(*args), autograph=False, reduce_retracing=True
            )
        # The first argument makes another trace for another solver.
        return _COMPILED[self](repr(self._solver()), inputs, training, limit, return_history)

    def _solve(self, inputs, training, max_steps, return_history):
        y = self._cast(inputs)
        problem = self._problem(y, training)
        return self._solver().solve(
            problem.frozen,
            self._initial_state(y),
            problem.reference,
            problem.modulus,
            max_steps,
            return_history,
        )

    def _ensure_built(self, inputs):
        if not self.built:
            self.build(tf.nest.map_structure(lambda t: tuple(t.shape), inputs))

    def _solver(self):
        if self.solver != "auto":
            return self.solver
        return solvers.get("nesterov" if getattr(self.cell, "is_convex", False) else "anderson")

    def _cast(self, inputs):
        return tf.nest.map_structure(
            lambda t: tf.cast(tf.convert_to_tensor(t), self.variable_dtype), inputs
        )

    def _initial_state(self, y):
        if hasattr(self.cell, "initial_state"):
            return self.cell.initial_state(y)
        return tf.zeros_like(tf.nest.flatten(y)[0])

    def _symbolic_state(self, y):
        if hasattr(self.cell, "initial_state"):
            return InitialState(self.cell)(y)
        return tf.nest.flatten(y)[0]

    def _problem(self, y, training):
        cell = self.cell
        known = {
            name: getattr(cell, name)(y) for name in ("reference", "modulus") if hasattr(cell, name)
        }
        known["symmetric"] = bool(getattr(cell, "has_energy", False))
        known["convex"] = bool(getattr(cell, "is_convex", False))
        stopped_y = tf.nest.map_structure(tf.stop_gradient, y)
        recorded = [(v, tf.convert_to_tensor(v)) for v in cell.variables]
        stopped = [(v, tf.stop_gradient(value)) for v, value in recorded]
        if hasattr(cell, "bind"):
            f = cell.bind(y)
            with keras.StatelessScope(state_mapping=stopped):
                frozen = cell.bind(stopped_y)
            return FixedPointProblem(f, f, frozen, **known)

        def evaluate(z, y):
            result = call_cell(cell, z, y, training)
            return tf.nest.map_structure(lambda new, old: tf.cast(new, old.dtype), result, z)

        def pure(z, y=y, state=recorded):
            # Every call starts from the same state, so dropout masks stay the same in a solve.
            with keras.StatelessScope(state_mapping=state):
                return evaluate(z, y)

        return FixedPointProblem(
            call=lambda z: evaluate(z, y),
            pure=pure,
            frozen=lambda z: pure(z, stopped_y, stopped),
            **known,
        )

    def _report_backward(self, solution):
        self._record("backward", solution)

    def _record(self, direction, solution):
        converged = "converged" if direction == "forward" else "backward_converged"
        self._diagnostics[f"{direction}_steps"].update_state(solution.steps)
        self._diagnostics[f"{direction}_residual"].update_state(solution.residual)
        self._diagnostics[converged].update_state(tf.cast(solution.converged, tf.float32))

    def compute_output_shape(self, input_shape):
        if hasattr(self.cell, "bind"):
            return first_shape(input_shape)
        state = self._symbolic_state(symbolic(input_shape, self.variable_dtype))
        return tf.nest.map_structure(lambda z: tuple(z.shape), state)

    def get_config(self):
        solver = self.solver
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "solver": solver if solver == "auto" else keras.saving.serialize_keras_object(solver),
            "adjoint": keras.saving.serialize_keras_object(self.adjoint),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "cell", "solver", "adjoint"))


def _check_finite(inputs):
    """Refuse values that no solver can do anything with, where that can be known beforehand."""
    for tensor in tf.nest.flatten(inputs):
        if tf.executing_eagerly() and tensor.dtype.is_floating and tensor.shape.rank:
            bad = ~tf.math.is_finite(tensor)
            if tf.reduce_any(bad):
                images = tf.unique(tf.where(bad)[:, 0])[0].numpy().tolist()
                raise ValueError(
                    "Expected finite pixels. Received NaN or infinite values in "
                    f"{int(tf.reduce_sum(tf.cast(bad, tf.int32)))} places, in the images "
                    f"{images[:10]} of the batch. Remove these images, or mask the pixels and use "
                    "`deq_keras.operators.Mask`."
                )


class Diagnostic(keras.metrics.Mean):
    """A mean that is NaN, not zero, where nothing was measured: in validation, say."""

    def result(self):
        return tf.where(self.count > 0, super().result(), float("nan"))
