"""The seed 0 before each test, without what makes it dear."""

import pytest


class Seeds:
    """Sets the seeds of Python, NumPy, Keras and TensorFlow.

    Setting TensorFlow's makes it forget the kernels of all operations, which it then makes again:
    15 ms of each test. It is for those with a state, the random ones: they ask one function for
    their seed, so it is known whether there was any. One in a graph asks once, and may draw often.
    """

    def __init__(self):
        self._fresh, self._in_graph = False, False

    def watch(self):
        """Notes each seed that is asked for, from now on."""
        import tensorflow as tf
        from tensorflow.python.framework import random_seed

        ask = random_seed.get_seed

        def get_seed(seed):
            self._fresh = False
            self._in_graph |= not tf.executing_eagerly()
            return ask(seed)

        random_seed.get_seed = get_seed

    def forget(self):
        """The next time everything is set; graphs of before are gone."""
        self._fresh, self._in_graph = False, False

    def set(self, keras):
        import tensorflow as tf
        from tensorflow.python.eager import context

        with pytest.MonkeyPatch.context() as patch:
            if self._fresh and not self._in_graph and context.global_seed() == 0:
                patch.setattr(tf.random, "set_seed", lambda seed: None)
            keras.utils.set_random_seed(0)
        self._fresh = True
