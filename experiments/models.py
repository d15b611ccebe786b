"""The reconstruction models that are trained and compared, as compiled Keras models."""

import keras

import deq_keras as dk


def start_from(equilibrium_layer, variational_layer):
    """Give an equilibrium layer the weights of a trained variational one: the same map, as in the
    paper, with twice the filters to learn."""
    equilibrium_layer.cell.prior.adopt(variational_layer.prior)
    equilibrium_layer.cell.log_weight.assign(variational_layer.cell.log_weight)


def model(layer, channels, with_data=False, size=(None, None)):
    """A Keras model of one layer, for images of any size.

    Args:
        layer: Maps a measurement, or a pair of one and operator data, to an image.
        channels: Number of channels of the images.
        with_data: Whether the input is a pair `(measurement, data)`.
        size: Height and width, if only images of that size are wanted.
    """
    image = keras.Input((*size, channels), name="measurement")
    if not with_data:
        return keras.Model(image, layer(image))
    data = keras.Input((*size, channels), name="data")
    return keras.Model([image, data], layer([image, data]))


def compiled(built_model, learning_rate, steps):
    """Compile for `steps` steps of Adam on the mean squared error, with a cosine decay to a tenth.

    Args:
        built_model: A built Keras model.
        learning_rate: Initial learning rate.
        steps: Steps after which the rate has reached its end. `None`: it stays as it is.
    """
    if steps is not None:
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.1)
    built_model.compile(
        keras.optimizers.Adam(learning_rate),
        "mse",
        metrics=[dk.metrics.PSNR()],
        jit_compile=False,  # XLA makes convolution loops on a CPU slower
    )
    return built_model
