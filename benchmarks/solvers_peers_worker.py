"""The process of one peer in the suite `solvers`.

    python -m benchmarks.solvers_peers_worker

As `worker`, with another server. A module of `benchmarks.peers` has a function
`solvers(experts, cap)` from a `solvers_peers.Experts` to `{label: (solve, count)}`:
`solve(tolerance) -> (value, converged)` runs from the start and waits for the images, of the shape
of the measurement; `count() -> (maps, products)` says, untimed, what the last run took.
"""

import importlib
import time

import numpy as np

from benchmarks import worker

_SECONDS = 1.0  # repetitions end after so long


class Server:
    """Answers the requests of a `remote.Remote`; `run` is that of `solvers_worker.Server`."""

    def open(self, module, experts, cap):
        """Take a problem; the labels of the solvers of a module of `peers`."""
        made = importlib.import_module(f"benchmarks.peers.{module}").solvers(experts, cap)
        self._solvers, self._warm, self._cap = made, set(), cap
        self._truth = experts.truth.astype(np.float64)
        return list(made)

    def run(self, label, tolerance, repeats=1):
        """Solve from the start to a tolerance; compilation is not timed."""
        solve, count = self._solvers[label]
        if label not in self._warm:
            solve(1.0)
            self._warm.add(label)
        seconds, processor = [], []
        while len(seconds) < repeats and sum(seconds) < _SECONDS:
            begin = time.perf_counter(), time.process_time()
            value, converged = solve(tolerance)
            seconds.append(time.perf_counter() - begin[0])
            processor.append(time.process_time() - begin[1])
        maps, products = count()
        errors = _norms(value.astype(np.float64) - self._truth) / _norms(self._truth)
        return {
            "seconds": min(seconds),
            "processor": min(processor),
            "maps": float(maps),
            "products": float(products),
            "error": float(errors.max()),
            "converged": bool(converged) and maps + products <= self._cap,
        }


def _norms(images):
    return np.linalg.norm(images.reshape(len(images), -1), axis=1)


if __name__ == "__main__":
    worker.main(Server())
