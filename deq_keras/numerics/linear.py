"""Linear functions whose derivative is their adjoint.

TensorFlow saves such gradients for the outermost function of a SavedModel only. A reloaded one has
its implicit derivative, and warns of the others; they are in the name scope `LINEAR_MAP`, by which
an exporter may find them (`trainers.export`) and leave these derivatives to TensorFlow.
"""

import tensorflow as tf

from deq_keras.numerics.partial import replaced

LINEAR_MAP = "linear_map"  # the name scope of what has a gradient that TensorFlow knows as well


def linear(function, adjoint):
    """The function itself, with its adjoint as its derivative in the first argument.

    It can be differentiated any number of times. TensorFlow's own derivative of a chain of
    transforms and copies has several times as many operations.

    Args:
        function: `(u, *constants) -> v`, linear in the tensor `u`. The constants are structures of
            tensors and of whatever else; they have no derivative.
        adjoint: `(v, *constants) -> u`, with the same constants.
    """

    def call(u, *constants):
        tensors = [leaf for leaf in tf.nest.flatten(constants) if tf.is_tensor(leaf)]

        @tf.custom_gradient
        def evaluate(u, *tensors_):
            those = replaced(constants, tensors, tensors_)

            def gradient(v):
                return (linear(adjoint, function)(v, *those), *[None] * len(tensors_))

            return function(u, *those), gradient

        with tf.name_scope(LINEAR_MAP):
            return evaluate(u, *tensors)

    return call
