"""How solves converge: relative residuals over the steps."""

import numpy as np

from deq_keras.plot import figure as figures
from deq_keras.problems import Solution


def residuals(solutions, tolerance=None):
    """The relative residual of each image over the steps of a solve.

    A line ends where its image stopped: with a dot where it converged, with a cross where not.

    Args:
        solutions: A `deq_keras.solvers.Solution` with its history, as
            `layer.solve(y, return_history=True)` returns it, or a dictionary from a name, of a
            solver say, to one.
        tolerance: Where a line shows the tolerance, or `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If a solution has no history.

    Example:

    >>> layer = deq_keras.layers.Variational(
    ...     deq_keras.operators.Identity(), deq_keras.priors.TotalVariation())
    >>> solution = layer.solve(tf.random.uniform((2, 16, 16, 1)), return_history=True)
    >>> figure = deq_keras.plot.residuals(solution, tolerance=1e-5)
    >>> figure.axes[0].get_yscale()
    'log'
    """
    named = {"": solutions} if isinstance(solutions, Solution) else dict(solutions)
    figure = figures.new(5.2, 3.2)
    axes = figure.subplots()
    for number, (name, solution) in enumerate(named.items()):
        if solution.history is None:
            raise ValueError(
                f"Expected solutions with a history. Received {name or 'one'!r} without: solve "
                "with `return_history=True`."
            )
        history = np.asarray(solution.history)
        converged = np.asarray(solution.converged)
        for image, values in enumerate(history.T):
            values = values[: _last_change(values)]
            style = {"color": f"C{number}", "linewidth": 1.2, "alpha": 0.8}
            label = name if image == 0 and name else None
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, label=label, **style)
            marker = "o" if converged[image] else "x"
            axes.plot(steps[-1:], values[-1:], marker, color=f"C{number}", markersize=4)
    if tolerance is not None:
        axes.axhline(tolerance, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    figures.label(axes, "evaluations of the map", "relative residual")
    if any(named):
        axes.legend(fontsize=7, frameon=False)
    return figure


def _last_change(values):
    """How many of the residuals belong to steps of the image: after it stopped, they repeat."""
    same = np.flatnonzero(values[:-1] != values[1:])
    return int(same[-1]) + 2 if len(same) else 1
