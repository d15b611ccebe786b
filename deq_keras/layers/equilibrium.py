"""The equilibrium layer: `z* = cell(z*, y)`."""

from __future__ import annotations

import keras
import tensorflow as tf

from deq_keras import adjoints, certificates, regularizers, solvers
from deq_keras.checks import solvable
from deq_keras.config import described, deserialise, serialise
from deq_keras.layers import diagnostics, slow_convolutions, structure
from deq_keras.layers.cell import Cell, LayerCell, WithTraining, symbolic
from deq_keras.layers.live_table import LiveTable
from deq_keras.layers.observation import Observed
from deq_keras.layers.observation import current as current_observation
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.numerics.shapes import shapes_of, tensors_of
from deq_keras.problems import Solution, drop, joined


@keras.saving.register_keras_serializable(package="deq_keras")
class Equilibrium(keras.layers.Layer):
    """Deep equilibrium layer: maps `y` to the fixed point `z* = cell(z*, y)`.

    The fixed point is found by a solver without recording anything; derivatives pass through it
    by the implicit function theorem (`deq_keras.adjoints`), so memory does not grow with the number
    of iterations. Every image of a batch stops by itself.

    While it is solved for, the cell sees one snapshot of its state: the masks of its dropout layers
    are the same in every evaluation (variational dropout), and so are the statistics of its
    normalisations. State is committed once a call.

    In training the layer reports, as metrics that `fit` shows and logs, the mean number of forward
    and backward steps (and how many of the forward ones were products with the Jacobian, of a
    solver that takes some), the relative residuals, the share of images that converged, and, where
    the cell may certify a modulus, a bound on the error of the solution (root mean square over the
    pixels): an implicit gradient at a point that is no fixed point is wrong.

    Args:
        cell: A `deq_keras.layers.Cell`, or any Keras layer or model called as `cell(z, y)` (or
            `cell([z, y])` if its `call` takes one argument) that returns a tensor, list or
            dictionary of tensors like `z`: it is put into a `LayerCell`, with a state of the shape
            of the measurement that starts at zero. `layer.structure` says what it declares, or
            what was found out by trying it when the layer was built.
        solver: A name such as `"anderson"`, a `deq_keras.solvers.Solver`, or `"auto"`: for steps on
            an energy L-BFGS, with a constraint the nonmonotone accelerated proximal gradient
            method (both search along lines, so they need no certified step and no convexity), and
            Anderson for all other maps.
        adjoint: A name such as `"implicit"` or a `deq_keras.adjoints.Adjoint`.
        jacobian_regularizer: A penalty on the Jacobian at the solution that is added to the loss in
            training: `"jacobian_frobenius"`, `"jacobian_spectral"` or a
            `deq_keras.regularizers.JacobianRegularizer`. It keeps a learned map contractive.
        on_failure: What happens when an image does not converge, forward or backward: `"silent"`
            (the metrics say so), `"warn"` (a line on the standard error stream) or `"error"`.

    Call arguments:
        inputs: The measurement `y`, or what the cell takes in its place (for a `GradientStep`, also
            a pair `(y, data)` with per-image data of the operator).
        initial_value: Where the solver starts, a tensor or structure like `z`, in place of the
            cell's own: a solution for similar weights or measurements, say. Where the size of the
            images does not follow from that of the measurement, it is the size of this.
        training: Passed on to the cell.

    Returns:
        The cell evaluated at the solution.

    Raises:
        tf.errors.InvalidArgumentError: If an image does not converge and `on_failure="error"`.

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

    def __init__(
        self,
        cell: keras.layers.Layer,
        solver: str | solvers.Solver = "auto",
        adjoint: str | adjoints.Adjoint = "implicit",
        jacobian_regularizer: str | regularizers.JacobianRegularizer | None = None,
        on_failure: str = "silent",
        **kwargs,
    ):
        # Solves run in the variables' dtype, also under a mixed precision policy.
        super().__init__(autocast=False, **kwargs)
        solvable(self)
        if not isinstance(cell, keras.layers.Layer):
            raise ValueError(f"Expected `cell` to be a Keras layer. Received {cell!r}.")
        self.cell = cell if isinstance(cell, Cell) else LayerCell(cell, dtype=self.dtype_policy)
        self.solver = solver if solver == "auto" else solvers.get(solver)
        self.adjoint = adjoints.get(adjoint)
        self.jacobian_regularizer = None
        if jacobian_regularizer is not None:
            self.jacobian_regularizer = regularizers.get(jacobian_regularizer)
            self._seeds = keras.random.SeedGenerator(0)
        self.on_failure = diagnostics.check_policy(on_failure)
        # XLA makes convolution loops on a CPU several times slower.
        self.supports_jit = False
        self.structure = None
        self._diagnostics = diagnostics.make(self.name)

    @property
    def metrics(self):
        """The metrics of this layer and of those in it, but for what it cannot report."""
        takes_products = self.solver != "auto" and self.solver.takes_products
        silent = diagnostics.silent(self._diagnostics, takes_products, self.cell.may_certify)
        return [metric for metric in super().metrics if metric not in silent]

    def build(self, input_shape):
        state_shape = self.cell.state_shape(input_shape)
        self.cell.ensure_built(state_shape, input_shape)
        shapes = state_shape, input_shape
        self.structure = structure.find(self.cell, *shapes, self.variable_dtype)
        slow_convolutions.warn(self.cell, *shapes, self.variable_dtype)
        self.built = True

    def call(self, inputs, initial_value=None, training=None):
        return self._in_own_precision(self._fixed_point, inputs, initial_value, training)

    def _in_own_precision(self, function, inputs, initial_value, training):
        if self.compute_dtype == self.variable_dtype:
            return function(inputs, initial_value, training)
        # A direct call under mixed precision would cast the weights: a layer without one does not.
        inner = WithTraining(
            lambda y: function(y, initial_value, training), dtype=self.variable_dtype
        )
        return inner(inputs, training=training)

    def _fixed_point(self, inputs, initial_value, training):
        (inputs, initial_value), count = at_least_one((tensors_of(inputs), initial_value))
        problem, one = self._problem(inputs, initial_value, training)
        solver, observation = self.choose_solver(problem), current_observation()
        if observation is not None:
            solver = observation.limited(solver)
        report = self._report_backward(training, count)
        output, solution = self.adjoint.solve(problem, solver, report)
        seen = first_rows(solution._replace(state=None), count)
        self._report_forward(problem, solution, seen, training)
        if observation is not None:
            observation.append(Observed(self, problem, seen, first_rows(output, count)))
        output = self._outputs(problem, output, training)
        output = first_rows(drop(output) if one else output, count)
        return tf.nest.map_structure(lambda z: tf.cast(z, self.compute_dtype), output)

    def _outputs(self, problem, output, training):
        return output

    def _problem(self, inputs, initial_value, training):
        """The problem of a measurement, and whether the batch is one problem."""
        initial_value = None if initial_value is None else self._cast(initial_value)
        problem = self.cell.bind(self._cast(inputs), initial_value, training)
        problem = problem._replace(symmetric=self.structure.symmetric)
        # Images that are not known to be independent are solved as one problem.
        one = bool(training) and self.structure.couples_batch is not False
        return (joined(problem) if one else problem), one

    def choose_solver(self, problem) -> solvers.Solver:
        """The solver for a problem: that of the layer, or the best one if it is `"auto"`."""
        if self.solver != "auto":
            return self.solver
        step = problem.step
        if step is None or step.energy is None:
            return solvers.get("anderson")
        return solvers.get("lbfgs" if step.proximal is None else "nonmonotone_apg")

    def _report_forward(self, problem, solution, seen, training):
        diagnostics.enforce(self.on_failure, self.name, "forward", seen)
        if not training:
            return
        bound = None
        if self.cell.may_certify:
            bound = certificates.root_mean_square_bound(problem, solution)
            bound = first_rows(bound, tf.shape(seen.residual)[0])
        diagnostics.record(self._diagnostics, "forward", seen, bound)
        if self.jacobian_regularizer is not None:
            z = tf.nest.map_structure(tf.stop_gradient, solution.value)
            seed = tf.cast(self._seeds.next(), tf.int32)
            penalty = self.jacobian_regularizer(problem.f, z, seed)
            penalty = tf.where(tf.size(seen.residual) > 0, penalty, tf.zeros_like(penalty))
            # Keras adds it to a loss of this dtype, which may differ from that of the layer.
            self.add_loss(tf.cast(penalty, keras.config.floatx()))

    def _report_backward(self, training, count):
        def report(solution):
            solution = first_rows(solution, count)
            diagnostics.enforce(self.on_failure, self.name, "backward", solution)
            if training:
                diagnostics.record(self._diagnostics, "backward", solution)

        return report

    # Autograph would take seconds to read what has no Python conditions on tensors.
    @tf.autograph.experimental.do_not_convert
    def solve(
        self,
        inputs,
        training: bool = False,
        max_steps: int | None = None,
        return_history: bool = False,
        initial_value=None,
        verbose: int = 0,
    ) -> Solution:
        """Find the fixed point and say how well: nothing is differentiated.

        Like a call it runs eagerly outside of graphs. For many measurements of one shape,
        `tf.function(layer.solve)` is faster; trace it anew after a change of the layer.

        Args:
            inputs: As in a call.
            training: As in a call.
            max_steps: Largest number of evaluations of the cell, in place of the solver's.
            return_history: Whether the solution has a `history` of the residuals.
            initial_value: As in a call.
            verbose: 1 for a table of steps and residuals that grows while the solve runs.

        Returns:
            A `deq_keras.solvers.Solution`, a row per image.

        Raises:
            ValueError: If an input holds NaN or infinite values (outside of graphs, where such an
                image has `converged=False`); with `verbose` in a graph.
        """
        inputs = tensors_of(inputs)
        diagnostics.check_finite(inputs)
        self._ensure_built(inputs)
        (inputs, initial_value), count = at_least_one((inputs, initial_value))
        problem = self._problem(inputs, initial_value, training)[0].frozen()
        solver = self.choose_solver(problem)
        table = LiveTable(solver) if verbose else None
        options = {"return_history": return_history, "on_step": table and table.step}
        found = solver.solve(problem, max_steps=max_steps, **options)
        history = found.history
        if history is not None and count is not None:
            history = history[:, :count]
        found = first_rows(found._replace(history=None), count)._replace(history=history)
        if table is not None:
            table.end(found)
        return found

    def error_bound(self, inputs, value) -> certificates.ErrorBound:
        """How far `value` is from the fixed point, for each image.

        Args:
            inputs: As in a call.
            value: Images, for instance `layer.solve(inputs).value`.

        Returns:
            A `deq_keras.certificates.ErrorBound(value, certified)`, `(batch,)` each: a bound on
            `||value - z*||` where the cell certifies strong convexity, and elsewhere an estimate by
            one linear solve.
        """
        inputs = tensors_of(inputs)
        self._ensure_built(inputs)
        problem, _ = self._problem(inputs, value, False)
        return certificates.solution_error(problem, self._cast(value))

    def _ensure_built(self, inputs):
        if not self.built:
            self.build(shapes_of(inputs, static=True))

    def _cast(self, inputs):
        """The inputs in the precision of the variables; complex ones stay complex."""

        def cast(tensor):
            if tensor is None:  # of an operator without data, beside one that has some
                return None
            if not tensor.dtype.is_complex:
                return tf.cast(tensor, self.variable_dtype)
            double = self.variable_dtype == "float64"
            return tf.cast(tensor, tf.complex128 if double else tf.complex64)

        return tf.nest.map_structure(cast, tensors_of(inputs))

    def compute_output_shape(self, input_shape, initial_value_shape=None):
        if initial_value_shape is not None:
            return initial_value_shape
        return self.cell.state_shape(input_shape)

    def compute_output_spec(self, inputs, initial_value=None, training=None):
        shapes = None if initial_value is None else shapes_of(initial_value, static=True)
        return symbolic(
            self.compute_output_shape(shapes_of(inputs, static=True), shapes), self.compute_dtype
        )

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The parts, which `model.summary(expand_nested=True)` shows below this layer."""
        return [self.cell]

    def __repr__(self):
        return described(self)

    def get_config(self):
        return {
            **super().get_config(),
            "cell": serialise(self.cell),
            "solver": serialise(self.solver),
            "adjoint": serialise(self.adjoint),
            "jacobian_regularizer": serialise(self.jacobian_regularizer),
            "on_failure": self.on_failure,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "cell", "solver", "adjoint", "jacobian_regularizer"))
