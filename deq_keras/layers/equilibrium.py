"""The equilibrium layer: `z* = cell(z*, y)`."""

import inspect
import weakref

import keras
import tensorflow as tf

from deq_keras import adjoints, certificates, regularizers, solvers
from deq_keras.checks import positive_int
from deq_keras.config import deserialise
from deq_keras.layers import diagnostics
from deq_keras.layers.calling import InitialState, WithTraining, call_cell, first_shape, symbolic
from deq_keras.layers.probing import couples_images, has_symmetric_jacobian
from deq_keras.layers.problems import fixed_point_problem

# Compiled `solve` of each layer. Kept outside of the layers, where an export would save it.
_COMPILED = weakref.WeakKeyDictionary()


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
    and backward steps, the relative residuals, the share of images that converged, and, where the
    cell certifies a modulus, a bound on the error of the solution (root mean square over the
    pixels): an implicit gradient at a point that is no fixed point is wrong.

    Args:
        cell: Keras layer or model called as `cell(z, y)` (or `cell([z, y])` if its `call` takes one
            argument) that returns a tensor, list or dictionary of tensors like `z`; a row of it may
            depend on the same row of `z` and `y` only. If it has the method `bind(y)`, that is used
            instead: see `GradientStep`. Optional methods: `initial_state(y)` (default: zeros like
            `y`), and `reference(y)`, `modulus(y)`, `objective(y)` (see
            `deq_keras.solvers.Problem`). Optional attributes: `has_energy`, `is_convex`; if a cell
            does not say whether it has an energy, the symmetry of its Jacobian is tried once.
        solver: A name such as `"anderson"`, a `deq_keras.solvers.Solver`, or `"auto"`: L-BFGS for a
            gradient step on a convex energy, Anderson otherwise.
        adjoint: A name such as `"implicit"` or a `deq_keras.adjoints.Adjoint`.
        jacobian_regularizer: A penalty on the Jacobian at the solution that is added to the loss in
            training: `"jacobian_frobenius"`, `"jacobian_spectral"` or a
            `deq_keras.regularizers.JacobianRegularizer`. It keeps a learned map contractive.
        corrections: Numbers of steps whose iterates are supervised as well. The output is then a
            list: a step of the cell from the iterate after each of these numbers of steps, with the
            Jacobian-free gradient, and the solution last. Outside of training all are the solution.
        on_failure: What happens when an image does not converge, forward or backward: `"silent"`
            (the metrics say so), `"warn"` (a line on the standard error stream) or `"error"`.

    Call arguments:
        inputs: The measurement `y`, `(batch, height, width, channels)` on [0, 1], or what the cell
            takes in its place (for a `GradientStep`, also a pair `(y, data)`).
        initial_state: Where the solver starts, a tensor or structure like `z`, instead of the
            cell's own initial state: a solution for similar weights or measurements, say.
        training: Passed on to the cell.

    Returns:
        The cell evaluated at the solution.

    Raises:
        tf.errors.InvalidArgumentError: If an image does not converge and `on_failure="error"`.

    Reference:
        Bai, Kolter and Koltun, Deep equilibrium models, NeurIPS 2019; Gilton, Ongie and Willett,
        Deep equilibrium architectures for inverse problems in imaging, IEEE TCI 2021; Bai, Geng,
        Savani and Kolter, Deep equilibrium optical flow estimation, CVPR 2022 (corrections).

    Example:

    >>> prior = deq_keras.priors.UntiedFieldsOfExperts(filters=8, kernel_size=5)
    >>> cell = deq_keras.layers.GradientStep(deq_keras.operators.Identity(), prior)
    >>> layer = deq_keras.layers.Equilibrium(cell)
    >>> layer(tf.random.uniform((2, 32, 32, 1))).shape
    TensorShape([2, 32, 32, 1])
    """

    def __init__(
        self,
        cell,
        solver="auto",
        adjoint="implicit",
        jacobian_regularizer=None,
        corrections=(),
        on_failure="silent",
        **kwargs,
    ):
        # Solves run in the variables' dtype, also under a mixed precision policy.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(cell, keras.layers.Layer):
            raise ValueError(f"Expected `cell` to be a Keras layer. Received {cell!r}.")
        self.cell = cell
        self.solver = solver if solver == "auto" else solvers.get(solver)
        self.adjoint = adjoints.get(adjoint)
        self.jacobian_regularizer = None
        if jacobian_regularizer is not None:
            self.jacobian_regularizer = regularizers.get(jacobian_regularizer)
            self._seeds = keras.random.SeedGenerator(0)
        self.corrections = tuple(positive_int("corrections", steps) for steps in corrections)
        self.on_failure = diagnostics.check_policy(on_failure)
        # XLA makes convolution loops on a CPU several times slower.
        self.supports_jit = False
        self._symmetric = self._couples = False  # until `build` has tried
        self._diagnostics = diagnostics.make(self.name)

    def build(self, input_shape):
        if not hasattr(self.cell, "bind"):
            # A symbolic call builds layers and models of any kind, also what is left unbuilt in a
            # loaded cell that has no `build` of its own.
            y = symbolic(input_shape, self.variable_dtype)
            z = self._symbolic_state(y)
            call_cell(self.cell, z, y, None)
            shapes = tf.nest.map_structure(lambda leaf: tuple(leaf.shape), z)
            arguments = self.cell, shapes, input_shape, self.variable_dtype
            self._couples = couples_images(*arguments)
            if not hasattr(self.cell, "has_energy"):
                self._symmetric = has_symmetric_jacobian(*arguments)
        elif not self.cell.built:
            shapes = (first_shape(input_shape), input_shape)
            self.cell.build(*shapes[: len(inspect.signature(self.cell.build).parameters)])
        self.built = True

    def call(self, inputs, initial_state=None, training=None):
        if self.compute_dtype == self.variable_dtype:
            return self._fixed_point(inputs, initial_state, training)
        # A direct call under mixed precision would cast the weights: a layer without one does not.
        inner = WithTraining(
            lambda y: self._fixed_point(y, initial_state, training), dtype=self.variable_dtype
        )
        return inner(inputs, training=training)

    def _fixed_point(self, inputs, initial_state, training):
        y = self._cast(inputs)
        problem, solver = self._problem(y, training), self._solver()
        z0 = self._start(y, initial_state)
        joined = training and self._couples
        if joined:
            problem, z0 = adjoints.joined(problem), adjoints.front(z0)
        output, solution = self.adjoint.solve(problem, z0, solver, self._report_backward(training))
        diagnostics.enforce(self.on_failure, self.name, "forward", solution)
        if training:
            bound = certificates.root_mean_square_bound(problem.frozen, solution)
            diagnostics.record(self._diagnostics, "forward", solution, bound)
            self._regularise(problem, solution)
        outputs = [output]
        if self.corrections and training:
            outputs = [*self._corrected(problem, z0, solver), output]
        elif self.corrections:
            outputs = [output] * (len(self.corrections) + 1)
        if joined:
            outputs = adjoints.drop(outputs)
        outputs = tf.nest.map_structure(lambda z: tf.cast(z, self.compute_dtype), outputs)
        return outputs if self.corrections else outputs[0]

    def _regularise(self, problem, solution):
        if self.jacobian_regularizer is not None:
            z = tf.nest.map_structure(tf.stop_gradient, solution.value)
            seed = tf.cast(self._seeds.next(), tf.int32)
            penalty = self.jacobian_regularizer(problem.pure().f, z, seed)
            # Keras adds it to a loss of this dtype, whatever the dtype of the layer.
            self.add_loss(tf.cast(penalty, keras.config.floatx()))

    def _corrected(self, problem, z0, solver):
        """One recorded step of the cell from the iterates after `corrections` steps."""
        f = problem.pure().f
        for steps in self.corrections:
            iterate = solver.solve(problem.frozen, z0, max_steps=steps).value
            yield f(tf.nest.map_structure(tf.stop_gradient, iterate))

    def solve(
        self, inputs, training=False, max_steps=None, return_history=False, initial_state=None
    ):
        """Find the fixed point and say how well: nothing is differentiated.

        Args:
            inputs: As in a call.
            training: As in a call.
            max_steps: Largest number of evaluations of the cell, in place of the solver's.
            return_history: Return `(solution, residuals)`; see `deq_keras.solvers.Solver.solve`.
            initial_state: As in a call.

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
            return self._solve(inputs, training, limit, return_history, initial_state)
        if self not in _COMPILED:
            layer = weakref.ref(self)
            _COMPILED[self] = tf.function(
                lambda _, *args: layer()._solve(*args), autograph=False, reduce_retracing=True
            )
        # The first argument makes another trace for another solver.
        return _COMPILED[self](
            repr(self._solver()), inputs, training, limit, return_history, initial_state
        )

    def _solve(self, inputs, training, max_steps, return_history, initial_state):
        y = self._cast(inputs)
        problem, z0 = self._problem(y, training), self._start(y, initial_state)
        return self._solver().solve(problem.frozen, z0, max_steps, return_history)

    def error_bound(self, inputs, value):
        """How far `value` is from the fixed point, for each image.

        Args:
            inputs: As in a call.
            value: Images, for instance `layer.solve(inputs).value`.

        Returns:
            A `deq_keras.certificates.ErrorBound(value, certified)`, `(batch,)` each: a bound on
            `||value - z*||` where the cell certifies a modulus of monotonicity, and elsewhere an
            estimate by one linear solve.
        """
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        self._ensure_built(inputs)
        problem = self._problem(self._cast(inputs), False)
        return certificates.solution_error(problem.frozen, self._cast(value))

    def _ensure_built(self, inputs):
        if not self.built:
            self.build(tf.nest.map_structure(lambda t: tuple(t.shape), inputs))

    def _solver(self):
        if self.solver != "auto":
            return self.solver
        return solvers.get("lbfgs" if getattr(self.cell, "is_convex", False) else "anderson")

    def _cast(self, inputs):
        return tf.nest.map_structure(
            lambda t: tf.cast(tf.convert_to_tensor(t), self.variable_dtype), inputs
        )

    def _problem(self, y, training):
        return fixed_point_problem(self.cell, y, training, self._symmetric)

    def _start(self, y, initial_state=None):
        if initial_state is not None:
            return self._cast(initial_state)
        if hasattr(self.cell, "initial_state"):
            return self.cell.initial_state(y)
        return tf.zeros_like(tf.nest.flatten(y)[0])

    def _symbolic_state(self, y):
        if hasattr(self.cell, "initial_state"):
            return InitialState(self.cell)(y)
        return tf.nest.flatten(y)[0]

    def _report_backward(self, training):
        def report(solution):
            diagnostics.enforce(self.on_failure, self.name, "backward", solution)
            if training:
                diagnostics.record(self._diagnostics, "backward", solution)

        return report

    def compute_output_shape(self, input_shape):
        if hasattr(self.cell, "bind"):
            shape = first_shape(input_shape)
        else:
            state = self._symbolic_state(symbolic(input_shape, self.variable_dtype))
            shape = tf.nest.map_structure(lambda z: tuple(z.shape), state)
        return [shape] * (len(self.corrections) + 1) if self.corrections else shape

    def get_config(self):
        solver = self.solver
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "solver": solver if solver == "auto" else keras.saving.serialize_keras_object(solver),
            "adjoint": keras.saving.serialize_keras_object(self.adjoint),
            "jacobian_regularizer": (
                None
                if self.jacobian_regularizer is None
                else keras.saving.serialize_keras_object(self.jacobian_regularizer)
            ),
            "corrections": self.corrections,
            "on_failure": self.on_failure,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "cell", "solver", "adjoint", "jacobian_regularizer"))


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
