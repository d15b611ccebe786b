"""What converters start from: the model itself, without what they do not know."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.export.formats import source


def operations(function):
    """The types of all operations of a function, and of those that it calls."""
    definition = function.graph.as_graph_def()
    bodies = [f.node_def for f in definition.library.function]
    return {node.op for nodes in (definition.node, *bodies) for node in nodes}


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    """A model with two inputs and a blur, and the function that was saved of it."""
    folder = tmp_path_factory.mktemp("source") / "model"
    prior = dk.priors.FieldsOfExperts(filters=4, kernel_size=5, sharpness=20.0)
    operator = dk.operators.Mask() @ dk.operators.GaussianBlur(3, 0.8)
    y, mask = (keras.Input((None, None, 1)) for _ in range(2))
    # A larger weight than the default: between measured pixels nothing else holds the image.
    layer = dk.layers.Variational(operator, prior, weight=1.0)
    model = keras.Model((y, mask), layer((y, [mask, None])))
    specs = source.signature(model)
    source.save(model, folder, specs)
    return model, specs, tf.saved_model.load(str(folder)).signatures["serving_default"]


@pytest.fixture(scope="module")
def live(inpainting):
    """The model as Keras exports it, compiled once for all sizes."""
    model, specs, _ = inpainting
    return source.live(model, specs).get_concrete_function(**specs)


def test_it_computes_what_the_model_does(inpainting, live):
    model, specs, saved = inpainting
    assert list(specs) == ["measurement", "data"]
    exactly = source.live(model, specs, 1e-6).get_concrete_function(**specs)
    for batch in source.random_batches(specs, [(2, 12, 9), (1, 7, 8)]):
        batch["data"] = batch["data"].round()
        tensors = {name: tf.constant(x) for name, x in batch.items()}
        outputs, expected = saved(**tensors), live(**tensors)
        assert outputs["converged"].numpy().tolist() == expected["converged"].numpy().tolist()
        exact = exactly(**tensors)["reconstruction"]
        error = np.abs(expected["reconstruction"] - exact).max()
        difference = np.abs(outputs["reconstruction"] - exact).max()
        assert difference < 1e-4 + 2 * error


def test_it_has_no_variables_and_nothing_that_formats_lack(inpainting, live):
    saved = inpainting[2]
    assert not saved.variables
    lacking = {"SelfAdjointEigV2", "RFFT2D", "IRFFT2D", "FFT2D", "MirrorPadGrad", "VarHandleOp"}
    assert not operations(saved) & lacking
    # The live model has them: the test can see them.
    assert {"SelfAdjointEigV2", "IRFFT2D"} <= operations(live)


def test_the_model_stays_as_it_was(inpainting):
    model = inpainting[0]
    blurs = [x for x in model._flatten_layers() if isinstance(x, dk.operators.Blur)]
    assert [blur.method for blur in blurs] == ["auto"]


def test_a_signature_of_one_size():
    y = keras.Input((None, None, 3))
    specs = source.signature(keras.Model(y, keras.layers.Conv2D(3, 1)(y)), (8, 9), 1)
    assert {name: tuple(spec.shape) for name, spec in specs.items()} == {
        "measurement": (1, 8, 9, 3)
    }


@pytest.mark.parametrize("outputs", [1, 2])
def test_of_any_model_the_image_is_the_last_output(outputs, tmp_path):
    """A sequential model has no input of its own until it is called."""
    if outputs == 1:
        model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Rescaling(0.5)])
    else:
        y = keras.Input((None, None, 1))
        model = keras.Model(y, [y, keras.layers.Rescaling(0.5)(y)])
    specs = source.signature(model)
    source.save(model, tmp_path, specs)
    loaded = tf.saved_model.load(str(tmp_path))
    image = tf.ones((1, 3, 4, 1))
    answer = loaded.signatures["serving_default"](measurement=image)
    np.testing.assert_array_equal(answer["reconstruction"], 0.5 * image)
