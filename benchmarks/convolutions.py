"""Times of convolutions on this machine: those of TensorFlow, and the forms of `deq_keras`.

    python -m benchmarks.convolutions

For each number of channels in and out: the convolution (`tf.nn.conv2d`), its derivatives by the
input and by the filters as TensorFlow computes them, and the same three of
`deq_keras.convolution.correlate`. Milliseconds of the processor, of all threads together, the least
of several runs: on a busy machine that says more than the time that passes.
"""

import time

from absl import app, flags

CHANNELS = ((1, 8), (1, 32), (1, 64), (8, 1), (32, 1), (64, 1), (32, 3), (64, 8), (32, 32))
COLUMNS = ("conv2d", "by input", "by filters", "correlate", "by input", "by filters")

_BATCH = flags.DEFINE_integer("batch", 8, "Images.", lower_bound=1)
_SIDE = flags.DEFINE_integer("side", 96, "Side of the images.", lower_bound=1)
_KERNEL = flags.DEFINE_integer("kernel", 5, "Side of the filters.", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", 15, "Runs of each.", lower_bound=1)


def forms(shape, kernel, filters):
    """Functions without arguments, compiled, for the columns of the table.

    Args:
        shape: Of the images, `(batch, height, width, channels)`.
        kernel: Side of the filters.
        filters: How many.
    """
    import tensorflow as tf

    import deq_keras as dk

    u = tf.random.normal(shape)
    weights = tf.random.normal((kernel, kernel, shape[-1], filters))
    v = tf.random.normal((*shape[:-1], filters))

    def of(function):
        def derivative(by):
            with tf.GradientTape() as tape:
                tape.watch([u, weights])
                value = function(u, weights)
            return tape.gradient(value, (u, weights)[by], v)

        # The value is not needed for a derivative, and TensorFlow leaves it out.
        return [
            lambda: function(u, weights),
            lambda: derivative(0),
            lambda: derivative(1),
        ]

    plain = of(lambda u, weights: tf.nn.conv2d(u, weights, 1, "SAME"))
    own = of(lambda u, weights: dk.convolution.correlate(u, weights, "zero"))
    return [tf.function(function, autograph=False) for function in (*plain, *own)]


def milliseconds(function, runs):
    """The least processor time of several runs, after one that compiles."""
    function()
    best = float("inf")
    for _ in range(runs):
        begin = time.process_time()
        function().numpy()
        best = min(best, time.process_time() - begin)
    return 1e3 * best


def main(argv):
    del argv
    print("channels   " + "".join(f"{name:>12}" for name in COLUMNS))
    for channels, filters in CHANNELS:
        shape = (_BATCH.value, _SIDE.value, _SIDE.value, channels)
        times = [milliseconds(form, _RUNS.value) for form in forms(shape, _KERNEL.value, filters)]
        print(f"{channels:3d} to {filters:<4d}" + "".join(f"{t:12.2f}" for t in times))


if __name__ == "__main__":
    app.run(main)
