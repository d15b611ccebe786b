"""The process of the suite `solvers`: one family of problems, and every solver that fits it.

    python -m benchmarks.solvers_worker

As `worker`, with another server. A solver is traced once for all sharpnesses and tolerances.
"""

import math
import time

import numpy as np
import tensorflow as tf

import deq_keras as dk
from benchmarks import solvers_cells, solvers_peers, worker
from deq_keras import certificates
from deq_keras.problems import Preconditioner

_EXACT = 1e-12  # relative residual of the reference, in float64
_PATIENCE = 10_000  # evaluations and products for it
_SMOOTH = 50.0  # sharpness from which a Newton method finds the solution from anywhere
_SECONDS = 1.0  # repetitions end after so long


def contestants(problem):
    """The solvers that fit a problem, from labels to a `Solver` with nothing else configured."""
    solvers, preconditioned = dk.solvers, isinstance(problem.preconditioner, Preconditioner)
    found = {
        "Picard": solvers.Picard(),
        "Anderson": solvers.Anderson(precondition=False),
        "Broyden": solvers.Broyden(),
        "Newton-Krylov": solvers.NewtonKrylov(),
    }
    if preconditioned:
        found["Anderson, preconditioned"] = solvers.Anderson(precondition=True)
    if problem.step is None or problem.step.energy is None:
        return found
    found["Nesterov"] = solvers.Nesterov()
    found["Nonmonotone APG"] = solvers.NonmonotoneAPG()
    found["L-BFGS"] = solvers.LBFGS(precondition=False)
    if preconditioned:
        found["L-BFGS, preconditioned"] = solvers.LBFGS(precondition=True)
    return found


def chosen(layer, problem):
    """The label of what `"auto"` takes for a problem."""
    solver = layer.choose_solver(problem)
    configured = solver.get_config()
    if configured.get("precondition") == "auto":
        configured["precondition"] = solver.preconditions(problem)
    for label, other in contestants(problem).items():
        if type(other) is type(solver) and other.get_config() == configured:
            return label
    return type(solver).__name__


def ramp(sharpness):
    """The sharpnesses of the reference on its way to one; `None`: that there is none."""
    if sharpness is None:
        return [None]
    first = min(_SMOOTH, sharpness)
    doublings = math.ceil(math.log2(sharpness / first) - 1e-9)
    return [first * 2.0**k for k in range(doublings)] + [sharpness]


class Server:
    """Answers the requests of a `remote.Remote`."""

    def open(self, family, max_steps):
        """Take a family of problems: `solvers_grid.Family`.

        Args:
            family: The family.
            max_steps: Evaluations and products after which a solver has failed.

        Returns:
            The labels of the solvers that fit, and that of the one that `"auto"` is.
        """
        self._cell = solvers_cells.cell(family, "float32")
        self._exact = solvers_cells.cell(family, "float64")
        self._y = tf.constant(solvers_cells.measurement(family))
        self._functions, self._max_steps, self._family = {}, max_steps, family
        self._exactly = tf.function(self._solve_exactly, autograph=False)
        layer = dk.layers.Equilibrium(self._cell)
        layer.build(self._y.shape)
        problem = self._cell.bind(self._y)
        return list(contestants(problem)), chosen(layer, problem)

    def reference(self, sharpness):
        """Solve in float64 for a sharpness, and remember it for `run`.

        Newton's method goes there from a smooth problem, twice as sharp each time: started from
        afar it gets lost between the kinks of a sharp one.

        Returns:
            The largest relative residual, an estimate of the largest relative error by one linear
            solve, and the largest number of evaluations and products.
        """
        y = tf.cast(self._y, tf.float64)
        value = self._exact.bind(y).initial_value
        for step in ramp(sharpness):
            solvers_cells.set_sharpness(self._exact, step)
            found, bound = self._exactly(y, value)
            value = found.value
        solvers_cells.set_sharpness(self._cell, sharpness)
        self._truth = value.numpy()
        return {
            "residual": float(found.residual.numpy().max()),
            "error": float((bound.value.numpy() / _norms(self._truth)).max()),
            "steps": int(found.steps.numpy().max()),
        }

    def experts(self):
        """The map for the last sharpness as arrays: a `solvers_peers.Experts`."""
        if not solvers_peers.fits(self._family):
            raise ValueError(f"Expected fields of experts. Received {self._family.name}.")
        return solvers_cells.experts(self._cell, self._y, self._truth)

    def run(self, label, tolerance, repeats=1):
        """Solve from the start to a tolerance.

        Args:
            label: Of a solver.
            tolerance: Relative residual.
            repeats: Runs; fewer if they take more than a second together.

        Returns:
            Dictionary with the least `seconds` of a run, and of them those of the `processor` (of
            all cores together), the mean numbers of `maps` and `products` of an image, the largest
            relative `error`, and whether all `converged`.
        """
        if label not in self._functions:
            self._functions[label] = self._compiled(label)
            self._functions[label](self._y, tf.constant(1.0))  # traces it
        tolerance, seconds, processor = tf.constant(tolerance), [], []
        while len(seconds) < repeats and sum(seconds) < _SECONDS:
            begin = time.perf_counter(), time.process_time()
            found = self._functions[label](self._y, tolerance)
            value = found.value.numpy()  # waits for it
            seconds.append(time.perf_counter() - begin[0])
            processor.append(time.process_time() - begin[1])
        products = 0.0 if found.products is None else found.products.numpy().mean()
        errors = _norms(value.astype(np.float64) - self._truth) / _norms(self._truth)
        return {
            "seconds": min(seconds),
            "processor": min(processor),
            "maps": float(found.steps.numpy().mean() - products),
            "products": float(products),
            "error": float(errors.max()),
            "converged": bool(found.converged.numpy().all()),
        }

    def _compiled(self, label):
        """A function of measurement and tolerance. What does not depend on the iterate is computed
        in it as well, as in a call of a layer."""

        def solve(y, tolerance):
            problem = self._cell.bind(y).frozen()
            solver = contestants(problem)[label].within(tolerance, self._max_steps)
            return solver.solve(problem)

        return tf.function(solve, autograph=False)

    def _solve_exactly(self, y, value):
        problem = self._exact.bind(y).frozen()
        if problem.step is not None and problem.step.energy is not None:  # from far away
            value = dk.solvers.LBFGS(memory=20, max_steps=_PATIENCE).solve(problem, value).value
        options = {"tolerance": _EXACT, "max_steps": _PATIENCE, "inner_steps": 300}
        found = dk.solvers.NewtonKrylov(**options).solve(problem, value)
        return found, certificates.solution_error(problem, found.value)


def _norms(images):
    return np.linalg.norm(images.reshape(len(images), -1), axis=1)


if __name__ == "__main__":
    worker.main(Server())
