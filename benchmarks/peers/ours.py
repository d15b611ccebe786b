"""deq_keras, in two ways: a cell of a user's own, and the library's parts for energies.

Only public names are used. `"cell"` is the map written by a user in TensorFlow, of which the
library knows nothing; `"energy"` is `Variational` with fields of experts, whose structure it knows.
"""

import inspect

import numpy as np

FAMILIES = {
    "Variational, defaults": {"route": "energy"},
    "Variational, L-BFGS + CG": {
        "route": "energy",
        "solver": "lbfgs",
        "linear": "conjugate_gradient",
    },
    "Variational, Nesterov + CG": {
        "route": "energy",
        "solver": "nesterov",
        "linear": "conjugate_gradient",
    },
    "Variational, Anderson + CG": {
        "route": "energy",
        "solver": "anderson",
        "linear": "conjugate_gradient",
    },
}
REQUIRES = ()


def build(problem, options):
    """One training step.

    Args:
        problem: A `Problem`.
        options: `route`, `"energy"` or `"cell"`, and perhaps the names `solver`, `linear` and
            `adjoint`, `tolerance`, `steps` (the largest number), `step_size`, `compact` and, for
            a cell, `convolutions`: `"library"` for ours in the place of TensorFlow's, `"layers"`
            for a cell of `dk.layers.Conv2D` and `Conv2DTranspose`.
    """
    import tensorflow as tf

    layer, transform = _layer(problem, options)
    y, x = tf.Variable(problem.measurement), tf.constant(problem.target)
    layer.build(y.shape)
    transform.start(layer)

    @tf.function(autograph=False)
    def compiled():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = transform.weights(layer)
            tape.watch([v.value for v in weights])
            tape.watch(y)
            u = layer(y, training=True)
            loss = 0.5 * tf.reduce_sum((u - x) ** 2)
        return tape.gradient(loss, [*(v.value for v in weights), y])

    def step():
        for metric in layer.metrics:
            metric.reset_state()
        gradients = compiled()
        gradients[-1].numpy()  # waits for it
        return gradients

    def finish(gradients):
        *weights, measurement = (np.asarray(g) for g in gradients)
        measured = {m.name.removeprefix(f"{layer.name}_"): float(m.result()) for m in layer.metrics}
        return {
            "filters": transform.filters(layer, weights),
            "measurement": measurement,
            **{name: value for name, value in measured.items() if np.isfinite(value)},
        }

    return step, finish


def names():
    """All solvers, linear solvers and adjoints that can be asked for by name."""
    import deq_keras as dk

    modules = ("solvers", "linear_solvers", "adjoints")
    return {module: list(getattr(dk, module)._BY_NAME) for module in modules}


def accepts(module, name, argument):
    """Whether a solver's constructor has an argument."""
    import deq_keras as dk

    kind = type(getattr(dk, module).get(name))
    return argument in inspect.signature(kind.__init__).parameters


def check_map(problem):
    """Relative difference of the library's gradient of the energy at `y` from the reference's."""
    from benchmarks.reference import Energy

    value = gradient_at(problem)
    u = problem.measurement.astype(np.float64)
    true = Energy(problem).gradient(u)
    return float(np.linalg.norm(value - true) / np.linalg.norm(true))


def gradient_at(problem):
    """`grad E(y)` by the library's layer."""
    layer, transform = _layer(problem, {"route": "energy"})
    layer.build(problem.measurement.shape)
    transform.start(layer)
    gradient = layer.energy_gradient(problem.measurement, problem.measurement)
    return problem.data_weight * gradient.numpy().astype(np.float64)


def _layer(problem, options):
    import deq_keras as dk

    arguments = {}
    if options.get("solver") or options.get("tolerance"):
        default = "lbfgs" if options["route"] == "energy" else "anderson"
        arguments["solver"] = _configured(
            dk.solvers, options.get("solver") or default, options, steps="max_steps"
        )
    if options.get("adjoint"):
        arguments["adjoint"] = dk.adjoints.get(options["adjoint"])
    elif options.get("linear") or options.get("tolerance"):
        default = "conjugate_gradient" if options["route"] == "energy" else "gmres"
        linear = _configured(dk.linear_solvers, options.get("linear") or default, options)
        arguments["adjoint"] = dk.adjoints.Implicit(linear)
    if options["route"] == "cell":
        kind = _cell_of_layers if options.get("convolutions") == "layers" else _cell
        return dk.layers.Equilibrium(kind(problem, options), **arguments), _Plain()
    transform = _Normalised(problem)
    prior = dk.priors.FieldsOfExperts(
        filters=problem.filters.shape[-1],
        kernel_size=problem.filters.shape[:2],
        activation="tanh",
        sharpness=transform.sharpness,
        max_sharpness=None,
        padding="zero",
        zero_mean=False,
        filters_initializer=lambda shape, dtype=None: problem.filters,
    )
    if problem.blur is None:
        operator = dk.operators.Identity()
    else:
        operator = dk.operators.Blur(problem.blur, padding="circular")
    layer = dk.layers.Variational(
        operator, prior, transform.weight, step_size=options.get("step_size"), **arguments
    )
    return layer, transform


def _configured(module, name, options, steps=None):
    """A solver by name with the tolerance and the numbers of steps of `options`, where it has
    such arguments."""
    kind = type(module.get(name))
    accepted = inspect.signature(kind.__init__).parameters
    wanted = {"tolerance": options.get("tolerance"), "compact": options.get("compact")}
    if options.get("steps"):
        wanted[steps or "max_steps"] = options["steps"]
    given = {key: value for key, value in wanted.items() if value is not None}
    missing = sorted(set(given) - set(accepted))
    if missing:
        raise ValueError(f"{kind.__name__} takes no {', '.join(missing)}.")
    return kind(**given)


def _cell(problem, options):
    import tensorflow as tf

    import deq_keras as dk

    class Cell(dk.layers.Cell):
        """The map as a user would write it."""

        def build(self, z_shape, y_shape=None):
            self.filters = self.add_weight(
                shape=problem.filters.shape,
                initializer=lambda shape, dtype=None: problem.filters,
                name="filters",
            )
            self.built = True

        def call(self, z, y):
            if options.get("convolutions") == "library":
                weights = tf.convert_to_tensor(self.filters)
                response = dk.convolution.correlate(z, weights, "zero")
                response = tf.tanh(problem.sharpness * response)
                back = dk.convolution.correlate_adjoint(response, weights, "zero")
            else:  # the adjoint with odd filters; conv2d_transpose takes as long
                response = tf.nn.conv2d(z, self.filters, 1, "SAME")
                response = tf.tanh(problem.sharpness * response)
                flipped = tf.transpose(tf.reverse(self.filters, [0, 1]), [0, 1, 3, 2])
                back = tf.nn.conv2d(response, flipped, 1, "SAME")
            return z - problem.step * (problem.data_weight * (z - y) + back)

        def initial_value(self, y):
            return y

    _check_denoising(problem)
    return Cell()


def _cell_of_layers(problem, options):
    """The map of two Keras layers. Each has weights of its own, both `A` here: the derivative by
    `A` is the sum of theirs."""
    import tensorflow as tf

    import deq_keras as dk

    common = {
        "kernel_size": problem.filters.shape[:2],
        "padding": "same",
        "use_bias": False,
        "kernel_initializer": lambda shape, dtype=None: problem.filters,
    }

    class Cell(dk.layers.Cell):
        """The map as a user of Keras would write it."""

        def build(self, z_shape, y_shape=None):
            self.analysis = dk.layers.Conv2D(problem.filters.shape[-1], **common)
            self.synthesis = dk.layers.Conv2DTranspose(1, **common)
            self.analysis.build(z_shape)
            self.synthesis.build((*z_shape[:-1], problem.filters.shape[-1]))
            self.built = True

        def call(self, z, y):
            response = tf.tanh(problem.sharpness * self.analysis(z))
            back = self.synthesis(response)
            return z - problem.step * (problem.data_weight * (z - y) + back)

        def initial_value(self, y):
            return y

    _check_denoising(problem)
    return Cell()


def _check_denoising(problem):
    if problem.blur is not None:
        raise ValueError("This route knows denoising only.")


class _Plain:
    """A layer whose weights are `A` itself, once or several times."""

    def start(self, layer):
        pass

    def weights(self, layer):
        return layer.trainable_variables

    def filters(self, layer, gradients):
        return sum(gradients)


class _Normalised:
    """A layer that divides the filters by a certified norm `s(A)`.

    With weight `s / a` and sharpness `chi s` its energy is `E / a`. As `A` changes, so would these
    two if they were to stay the same energy, so the derivative with respect to `A` in
    `E` follows from those with respect to the layer's three weights by the chain rule,

        dL/dA = dL/d(analysis) + (dL/d(log weight) + sum_i dL/d(log sharpness_i)) (ds/dA) / s.
    """

    def __init__(self, problem):
        self.problem = problem
        # Any positive values will do until `start` knows the norm.
        self.weight, self.sharpness = 1.0, 1.0

    def start(self, layer):
        """Set the weight and the sharpness that belong to the norm of the current filters."""
        norm, _ = self._norm(layer)
        layer.cell.log_weight.assign(np.log(norm / self.problem.data_weight))
        sharpness = layer.cell.prior.log_sharpness
        sharpness.assign(np.full(sharpness.shape, np.log(norm * self.problem.sharpness)))

    def weights(self, layer):
        prior = layer.cell.prior
        return [prior.analysis, layer.cell.log_weight, prior.log_sharpness]

    def filters(self, layer, gradients):
        analysis, weight, sharpness = gradients
        norm, derivative = self._norm(layer)
        scale = float(weight) + float(np.sum(sharpness, dtype=np.float64))
        return analysis.astype(np.float64) + scale * derivative / norm

    def _norm(self, layer):
        """`s(A)` and its derivative, seen from outside: the filters over what becomes of them."""
        import tensorflow as tf

        prior = layer.cell.prior
        with tf.GradientTape() as tape:
            norm = tf.norm(prior.analysis) / tf.norm(prior.coefficients().analysis)
        return float(norm), tape.gradient(norm, prior.analysis.value).numpy().astype(np.float64)
