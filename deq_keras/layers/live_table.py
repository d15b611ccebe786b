"""Table of a solve, printed while it runs: steps, images left, residuals."""

import numpy as np


class LiveTable:
    """Prints a line for steps of a solve: each of the first ten, then each tenth, then hundredth.

    Args:
        solver: The `deq_keras.solvers.Solver` that solves, which is named above the table.
    """

    def __init__(self, solver):
        print(f"{type(solver).__name__}, tolerance {solver.tolerance:.1e}")
        print(
            f"{'step':>6} {'images left':>12} {'median residual':>16} {'largest':>10}", flush=True
        )

    def step(self, number, residual, active):
        """The line of a step: see `on_step` of `Solver.solve`."""
        if number % 10 ** (len(str(number)) - 1):
            return
        residual, left = np.asarray(residual), int(np.sum(active))
        if residual.size:
            middle, largest = np.median(residual), np.max(residual)
            print(f"{number:>6} {left:>12} {middle:>16.2e} {largest:>10.2e}", flush=True)

    def end(self, solution):
        """The last line: what was found."""
        converged, steps = np.asarray(solution.converged), np.asarray(solution.steps)
        most = int(steps.max()) if steps.size else 0
        count = f"{int(converged.sum())} of {converged.size} images converged"
        print(f"{count}, in at most {most} steps", flush=True)
