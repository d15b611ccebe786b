"""The contract of a fixed-point solver, and the only loop of the forward pass.

A solver finds `z = f(z)`. It knows nothing of derivatives, images or layers: it sees a map of
rows (`deq_keras.rows`), each row a problem of its own with its own residual, step count and
verdict. The loop, the stopping rule and the choice of the best iterate are here; a subclass
says how one iterate leads to the next.
"""

import numpy as np
import tensorflow as tf

from deq_keras.registry import Configurable, positive, positive_int
from deq_keras.rows import norm, ranks_only, to_rows, where
from deq_keras.solution import Solution


class Solver(Configurable):
    """Base class of fixed-point solvers.

    A subclass defines a `NamedTuple` state with at least the fields `z` and `fz = f(z)`, and

    - `init(f, z, modulus) -> state`, which evaluates `f` once;
    - `step(f, state, modulus) -> state`, which evaluates `f` once, at the new `z`.

    **Stopping.** Image `i` stops when `||f(z) - z|| <= tolerance * reference[i]`. The default
    reference is `||f(z)||`; a caller who knows the scale of the problem passes a better one (the
    layers do: for a gradient step of length `tau` the reference is `tau ||K^T y||`, so the
    criterion is `||grad E(u)|| <= tolerance ||K^T y||`, whatever the step size). The tolerance
    is never taken below four units of rounding, nor the residual below half a unit of `||f(z)||`.

    Args:
        tolerance: Relative residual at which an image stops. Defaults to 1e-5.
        max_steps: Largest number of evaluations of the map.
    """

    def __init__(self, tolerance=1e-5, max_steps=1000):
        self.tolerance = positive("tolerance", tolerance)
        self.max_steps = positive_int("max_steps", max_steps)

    def init(self, f, z, modulus):
        """The first state, at the rows `z`; evaluates `f` once."""
        raise NotImplementedError

    def step(self, f, state, modulus):
        """The next state; evaluates `f` once."""
        raise NotImplementedError

    def solve(self, f, z0, reference=None, modulus=None, max_steps=None, return_history=False):
        """Find `z = f(z)` for every image of a batch.

        Args:
            f: Callable from a structure like `z0` to one of the same shape and dtype. Row `i` of
                the result must depend on row `i` of the argument only.
            z0: Tensor `(batch, ...)` or nested structure of them: where to start.
            reference: Tensor `(batch,)`, what the residual is relative to; see the class.
            modulus: Scalar or tensor `(batch,)`, a certified `m >= 0` with
                `<(a - f(a)) - (b - f(b)), a - b> >= m ||a - b||^2`, if known.
            max_steps: Integer or integer tensor in place of `self.max_steps`.
            return_history: Return `(solution, residuals)`, the second a `(steps, batch)` tensor
                with the relative residual at each evaluation; after an image has stopped its row
                repeats its best value.

        Returns:
            A `Solution`. Nothing in it is differentiated here: see `deq_keras.adjoints`.
        """
        limit = self.max_steps if max_steps is None else max_steps
        flat, ravel, unravel = to_rows(z0)

        def rows_f(rows):
            return ravel(f(unravel(rows)))

        state = self.init(rows_f, flat, modulus)
        residual, done = self._assess(state, reference)
        active = ~done & tf.math.is_finite(residual)
        history = None
        if return_history:
            history = tf.TensorArray(flat.dtype, size=1, dynamic_size=True, clear_after_read=False)
            history = history.write(0, residual)
        # A diverged start leaves z0 itself as the best there is.
        loop = (
            tf.constant(1),
            state,
            where(tf.math.is_finite(residual), state.z, flat),
            residual,
            tf.ones_like(residual, tf.int32),
            done,
            active,
            history if return_history else (),
        )

        def keep_going(k, state, best, residual, steps, converged, active, history):
            return (k < limit) & tf.reduce_any(active)

        def body(k, state, best, residual, steps, converged, active, history):
            state = self.step(rows_f, state, modulus)
            new_residual, done = self._assess(state, reference)
            better = active & ((new_residual < residual) | done)
            best = where(better, state.z, best)
            residual = tf.where(better, new_residual, residual)
            steps += tf.cast(active, tf.int32)
            converged |= active & done
            active &= ~done & tf.math.is_finite(new_residual)
            if return_history:
                history = history.write(k, tf.where(active, new_residual, residual))
            return k + 1, state, best, residual, steps, converged, active, history

        _, _, best, residual, steps, converged, _, history = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        solution = Solution(unravel(best), residual, steps, converged)
        return (solution, history.stack()) if return_history else solution

    def unroll(self, f, z0, steps, reference=None, modulus=None):
        """Take exactly `steps` steps with no stopping, so that a tape can go through them.

        Args and the returned `Solution` are those of `solve`; `value` is the last iterate.
        """
        flat, ravel, unravel = to_rows(z0)

        def rows_f(rows):
            return ravel(f(unravel(rows)))

        state = self.init(rows_f, flat, modulus)
        loop = (tf.constant(1), state)
        _, state = tf.while_loop(
            lambda k, state: k < steps,
            lambda k, state: (k + 1, self.step(rows_f, state, modulus)),
            loop,
            maximum_iterations=steps - 1,
            shape_invariants=ranks_only(loop),
        )
        residual, done = self._assess(tf.nest.map_structure(tf.stop_gradient, state), reference)
        count = tf.fill(tf.shape(residual), steps)
        return Solution(unravel(state.z), residual, count, done)

    def _assess(self, state, reference):
        """Relative residual `(batch,)` of the state, and which images may stop."""
        limits = np.finfo(state.z.dtype.as_numpy_dtype)
        eps = float(limits.eps)
        absolute, scale = norm(state.fz - state.z), norm(state.fz)
        relative_to = scale if reference is None else tf.cast(reference, scale.dtype)
        # A zero reference (y = 0, say) must not make an exact solution look bad.
        floor = tf.maximum(0.5 * eps * scale, float(limits.tiny))
        # Norms that overflow belong to an image that diverges.
        finite = tf.math.is_finite(absolute) & tf.math.is_finite(scale)
        residual = tf.where(finite, absolute / tf.maximum(relative_to, floor), float("inf"))
        done = (residual <= max(self.tolerance, 4 * eps)) | (finite & (absolute <= floor))
        return residual, done

    def get_config(self):
        return {"tolerance": self.tolerance, "max_steps": self.max_steps}
