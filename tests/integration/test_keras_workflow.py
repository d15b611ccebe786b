"""What a user of Keras does with the layers: fit, predict, save, export, distribute."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk

SIZE = 12


def _images(count, seed=0, height=SIZE, width=SIZE):
    """Discs and ramps on [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / SIZE
    images = []
    for _ in range(count):
        centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.2, 0.4)
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        images.append(0.3 * rows * rng.uniform() + 0.6 * disc + 0.1)
    return np.stack(images)[..., None].astype("float32")


def _noisy(images, seed=1):
    noise = np.random.default_rng(seed).normal(size=images.shape)
    return (images + 0.1 * noise).astype("float32")


TRUTH, VALIDATION = _images(8), _images(4, seed=5)
NOISY, NOISY_VALIDATION = _noisy(TRUTH), _noisy(VALIDATION, 6)


def _prior(tied=True, padding="zero"):
    """With zeros beyond the border: their bound is the quickest to trace."""
    cls = dk.priors.FieldsOfExperts if tied else dk.priors.UntiedFieldsOfExperts
    return cls(4, 3, sharpness=20.0, padding=padding, filters_initializer="first_order")


def _bilevel():
    return dk.layers.Variational(
        dk.operators.Identity(), _prior(), weight=0.06, name="reconstruction"
    )


def _deq(**kwargs):
    cell = dk.layers.GradientStep(dk.operators.Identity(), _prior(tied=False), weight=0.06)
    return dk.layers.Equilibrium(cell, name="reconstruction", **kwargs)


def _model(make, optimizer=None):
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, make()(inputs))
    optimizer = optimizer or keras.optimizers.Adam(0.05)
    model.compile(optimizer, "mse", metrics=[dk.metrics.PSNR()])
    model.optimizer.build(model.trainable_variables)  # or a step of `fit` is traced twice
    return model


@pytest.fixture(scope="module")
def trained():
    """Each of the two models and its history."""
    result = {}
    for name, make in (("bilevel", _bilevel), ("deq", _deq)):
        keras.utils.set_random_seed(0)
        model = _model(make)
        options = {"batch_size": 4, "epochs": 6, "shuffle": False, "verbose": 0}
        validation = (NOISY_VALIDATION, VALIDATION)
        history = model.fit(NOISY, TRUTH, validation_data=validation, **options)
        result[name] = model, history.history
    return result


@pytest.mark.parametrize("name", ["bilevel", "deq"])
def test_fit_learns_and_says_how_well_it_solved(name, trained):
    model, history = trained[name]
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["val_loss"][-1] < 0.8 * np.mean((NOISY_VALIDATION - VALIDATION) ** 2)
    assert history["val_psnr"][-1] > history["val_psnr"][0]
    for direction in ("forward", "backward"):
        assert (np.array(history[f"reconstruction_{direction}_steps"]) > 1).all()
        residual = np.array(history[f"reconstruction_{direction}_residual"])
        assert (residual > 0).all()
        assert (residual <= 1e-5).all()
    np.testing.assert_array_equal(history["reconstruction_converged"], 1.0)
    np.testing.assert_array_equal(history["reconstruction_backward_converged"], 1.0)
    # Not measured is not zero.
    assert np.isnan(history["val_reconstruction_converged"]).all()
    options = {"batch_size": 4, "verbose": 0, "return_dict": True}  # as in `fit`: no other trace
    evaluation = model.evaluate(NOISY_VALIDATION, VALIDATION, **options)
    assert evaluation["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-4)


@pytest.mark.parametrize("name", ["bilevel", "deq"])
def test_all_weights_were_trained(name, trained):
    fresh = _model(_bilevel if name == "bilevel" else _deq)
    weights = trained[name][0].trainable_weights
    assert [w.path.split("/")[-1] for w in weights] == [
        w.path.split("/")[-1] for w in fresh.trainable_weights
    ]
    for before, after in zip(fresh.trainable_weights, weights, strict=True):
        assert np.abs(before - after).max() > 1e-3, after.path


@pytest.mark.parametrize("name", [pytest.param("bilevel", marks=pytest.mark.slow), "deq"])
@pytest.mark.parametrize(("height", "width"), [(9, 20), pytest.param(3, 3, marks=pytest.mark.slow)])
def test_predict_at_other_sizes(name, trained, height, width):
    model = trained[name][0]
    images = _noisy(_images(5, 9, height, width))
    predicted = model.predict(images, batch_size=2, verbose=0)
    assert predicted.shape == images.shape
    layer = model.get_layer("reconstruction")
    solution = layer.solve(images)
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(predicted, layer(images), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("name", [pytest.param("bilevel", marks=pytest.mark.slow), "deq"])
def test_save_and_load(name, trained, tmp_path):
    model = trained[name][0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = model(NOISY)
    np.testing.assert_allclose(again(NOISY), expected, atol=1e-6)
    # The optimizer goes on from where it was.
    losses = []
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    for one in (model, again):
        weights = one.get_weights()
        losses += one.fit(NOISY, TRUTH, **options).history["loss"]
        one.set_weights(weights)
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-5)
    weights_path = tmp_path / "model.weights.h5"
    model.save_weights(weights_path)
    fresh = _model(_bilevel if name == "bilevel" else _deq)
    fresh.load_weights(weights_path)
    np.testing.assert_allclose(fresh(NOISY), expected, atol=1e-6)


LOAD_ELSEWHERE = """
import sys
sys.modules["deq_keras"] = None  # whoever imports it fails
import numpy as np
import tensorflow as tf
folder = sys.argv[1]
data = np.load(f"{folder}.npz")
model = tf.saved_model.load(folder)
for size in ("small", "large"):
    inputs = [tf.constant(data[key]) for key in sorted(data) if key.startswith(f"{size}_in")]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = model.serve(inputs)
        loss = tf.reduce_sum(output**2)
    np.testing.assert_allclose(output, data[f"{size}_out"], rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(loss, inputs[0])
    np.testing.assert_allclose(gradient, data[f"{size}_gradient"], rtol=1e-3, atol=1e-4)
print("equal")
"""


def _export(model, path, *inputs):
    """An export, and what the model answers."""
    model.export(path, verbose=False)
    arrays = {}
    for size, count, height, width in (("small", 1, 7, 9), ("large", 3, 16, 11)):
        images = [tf.constant(i[:count, :height, :width]) for i in inputs]
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = model(images)
            loss = tf.reduce_sum(output**2)
        arrays.update({f"{size}_in{k}": image.numpy() for k, image in enumerate(images)})
        arrays[f"{size}_out"] = output.numpy()
        arrays[f"{size}_gradient"] = tape.gradient(loss, images[0]).numpy()
    np.savez(f"{path}.npz", **arrays)


@pytest.mark.slow  # so does another one in tests/trainers/export
def test_an_export_runs_elsewhere_without_this_package(tmp_path):
    """Dynamic batch, height and width; gradients pass through it; nothing is imported."""
    images = _noisy(_images(3, 7, 16, 11))
    measurement, mask = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    cell = dk.layers.GradientStep(dk.operators.Mask(), _prior(tied=False), weight=0.3)
    inpainting = keras.Model([measurement, mask], dk.layers.Equilibrium(cell)([measurement, mask]))
    masks = dk.operators.random_mask((3, 16, 11, 1), 0.7)
    _export(inpainting, str(tmp_path / "inpainting"), images * masks, masks)
    finished = subprocess.run(
        [sys.executable, "-c", LOAD_ELSEWHERE, str(tmp_path / "inpainting")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert finished.stdout.strip() == "equal", finished.stderr[-3000:]


@pytest.mark.slow  # of a complex one: tests/operators/test_in_layers.py
def test_pairs_of_measurement_and_mask(tmp_path):
    masks = dk.operators.random_mask(TRUTH.shape, 0.6, seed=2)
    measurement, mask = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    layer = dk.layers.Variational(dk.operators.Mask(), _prior(), weight=0.1)
    model = keras.Model([measurement, mask], layer([measurement, mask]))
    model.compile(keras.optimizers.Adam(0.1), "mse")
    inputs = [TRUTH * masks, masks]
    history = model.fit(inputs, TRUTH, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    predicted = [m.predict(inputs, verbose=0) for m in (model, again)]
    np.testing.assert_allclose(*predicted, atol=1e-6)


@pytest.mark.slow  # of an equilibrium: tests/layers
def test_mixed_precision():
    expected = _model(_bilevel).predict(NOISY, verbose=0)
    keras.config.set_dtype_policy("mixed_float16")
    model = _model(_bilevel)
    predicted = model.predict(NOISY, verbose=0)
    assert predicted.dtype == np.float16
    np.testing.assert_allclose(predicted, expected, atol=1e-3)
    losses = model.fit(NOISY, TRUTH, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert np.isfinite(model.predict(NOISY, verbose=0)).all()


def test_a_layer_between_other_layers():
    """Not the only layer, not built before `fit`, with a measurement that is itself learned."""
    options = {"solver": "picard", "adjoint": "jacobian_free"}  # the quickest to trace
    model = keras.Sequential(
        [keras.layers.Conv2D(1, 3, padding="same"), _deq(**options), keras.layers.Conv2D(1, 1)]
    )
    model.compile("adam", "mse")
    losses = model.fit(NOISY, TRUTH, epochs=2, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_bilevel_is_where_the_equilibrium_model_starts(trained):
    bilevel, deq = trained["bilevel"][0].get_layer("reconstruction"), _deq()
    deq.build(NOISY.shape)
    deq.cell.prior.adopt(bilevel.prior)
    deq.cell.log_weight.assign(bilevel.cell.log_weight)
    np.testing.assert_allclose(deq(NOISY), bilevel(NOISY), atol=1e-4)


@pytest.mark.slow  # `fit` itself; the trainer's steps are in tests/trainers
def test_two_devices_equal_one():
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        # Reduced on one device: several strategies in a process would mix up their collectives.
        strategy = tf.distribute.MirroredStrategy(
            devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = _model(_deq, keras.optimizers.SGD(0.1))
        assert strategy.num_replicas_in_sync == len(devices)
        history = model.fit(NOISY, TRUTH, batch_size=8, epochs=2, shuffle=False, verbose=0).history
        results.append((history, model.get_weights()))
    (one, weights_of_one), (two, weights_of_two) = results
    for a, b in zip(weights_of_one, weights_of_two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=2e-2, err_msg=name)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
