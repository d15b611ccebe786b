"""Small SavedModels with the signature `diagnose` of an export."""

import tensorflow as tf

import deq_keras as dk


class Exported(tf.Module):
    """A module with the signatures `diagnose` and `serving_default` of a function.

    Args:
        function: From the measurement and, if there is, the operator's data to `(reconstruction,
            steps, residual, converged)`.
        measurement: A `tf.TensorSpec`.
        data: Its kind, a `tf.TensorSpec`, or None.
        keep: What must be saved along.
    """

    def __init__(self, function, measurement, data=None, keep=()):
        super().__init__()
        self.keep = list(keep)
        specs = {"measurement": measurement}
        if data is not None:
            specs["data"] = data
        rows = {
            "tolerance": tf.TensorSpec([None], tf.float32, "tolerance"),
            "max_steps": tf.TensorSpec([None], tf.int32, "max_steps"),
        }

        @tf.function(input_signature=list({**specs, **rows}.values()))
        def diagnose(*arguments):
            inputs, (tolerance, max_steps) = arguments[:-2], arguments[-2:]
            finite = tf.reduce_all(tf.math.is_finite(tf.math.real(inputs[0])))
            with tf.control_dependencies([tf.debugging.Assert(finite, ["not finite"])]):
                value, steps, residual, converged = function(*map(tf.identity, inputs))
            # As far as a person can see the limits of an export at work.
            stopped = tf.logical_and(max_steps > 0, max_steps < steps)
            return {
                "reconstruction": value,
                "steps": tf.where(stopped, max_steps, steps),
                "residual": residual + 0 * tolerance,
                "converged": tf.logical_and(converged, tf.logical_not(stopped)),
                "error_bound": residual,
                "certified": tf.zeros_like(converged),
            }

        @tf.function(input_signature=list(specs.values()))
        def serve(*inputs):
            return {"reconstruction": function(*inputs)[0]}

        self.diagnose, self.serve = diagnose, serve

    def save(self, folder, diagnose=True):
        """Writes it; returns the folder."""
        signatures = {"serving_default": self.serve}
        if diagnose:
            signatures["diagnose"] = self.diagnose
        tf.saved_model.save(self, str(folder), signatures)
        return folder


def image(channels=1, dtype=tf.float32, name="measurement"):
    """The kind of a batch of images of any size."""
    return tf.TensorSpec([None, None, None, channels], dtype, name)


def _rows(like, steps, residual, converged):
    ones = tf.ones_like(tf.shape(like)[:1])
    return ones * steps, tf.fill([tf.size(ones)], residual), tf.fill([tf.size(ones)], converged)


def pointwise(channels=1):
    """`(1 + u) / 2` in 5 steps; images with a value of exactly 0 do not converge."""

    def function(u):
        n = tf.shape(u)[0]
        converged = tf.reduce_all(u > 0, axis=[1, 2, 3])
        return 0.5 + 0.5 * u, tf.fill([n], 5), tf.fill([n], 1e-5), converged

    return Exported(function, image(channels))


def masked():
    """What the mask, one channel for all, lets through."""

    def function(u, mask):
        return (u * mask, *_rows(u, 3, 1e-5, True))

    return Exported(function, image(1), image(1, name="data"))


def scaled():
    """Times the sum of a kernel, an array of two axes for each image."""

    def function(u, kernel):
        value = u * tf.reduce_sum(kernel, axis=[1, 2])[:, None, None, None]
        return (value, *_rows(u, 3, 1e-5, True))

    return Exported(function, image(1), tf.TensorSpec([None, None, None], tf.float32, "data"))


def doubled(channels=1):
    """Each pixel as a square of four: twice as large."""

    def function(u):
        value = tf.repeat(tf.repeat(u, 2, axis=1), 2, axis=2)
        return (value, *_rows(u, 2, 1e-5, True))

    return Exported(function, image(channels))


def fourier():
    """The real part of the inverse transform of Fourier coefficients."""

    def function(y):
        u = tf.math.real(tf.signal.ifft2d(y[..., 0]))[..., None]
        return (u, *_rows(y, 4, 1e-5, True))

    return Exported(function, image(1, tf.complex64))


def variational(operator, prior, weight):
    """The export of a `Variational` layer."""
    layer = dk.layers.Variational(operator, prior, weight)
    layer.build((None, None, None, 1))

    def function(u):
        solution = layer.solve(u)
        return solution.value, solution.steps, solution.residual, solution.converged

    return Exported(function, image(1), keep=[layer])
