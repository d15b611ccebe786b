"""What TensorBoard's own reader finds in the files: each step once, and the right pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    TENSORS,
    EventAccumulator,
)

import deq_keras as dk
from trainers.callbacks.tensorboard import TensorBoard, filter_grid, learned_filters
from trainers.process.errors import StorageError

SIDE = 12


def batch(count=3, with_data=False, channels=1):
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(count, SIDE, SIDE, channels)).astype(np.float32)
    noisy = tf.constant(truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32))
    if with_data:
        mask = tf.cast(rng.uniform(size=truth.shape) < 0.7, tf.float32)
        return (mask * noisy, mask), tf.constant(truth)
    return noisy, tf.constant(truth)


def bilevel(operator=None, with_data=False):
    # Of all boundaries and solvers the quickest to trace.
    prior = dk.priors.FieldsOfExperts(filters=3, kernel_size=3, sharpness=8.0, padding="zero")
    operator = operator or dk.operators.Identity()
    layer = dk.layers.Variational(operator, prior, solver="nesterov", name="bilevel")
    image, mask = (keras.Input((None, None, 1)) for _ in range(2))
    inputs = (image, mask) if with_data else image
    model = keras.Model(inputs, layer(inputs))
    rate = keras.optimizers.schedules.CosineDecay(0.01, 20, alpha=0.1)
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=[dk.metrics.PSNR()])
    model.optimizer.build(model.trainable_variables)  # or the step is traced twice
    return model, layer


def plain():
    """A model that is compiled in a moment."""
    layers = [keras.Input((SIDE, SIDE, 1)), keras.layers.Conv2D(1, 3, padding="same")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


class Seen(keras.callbacks.Callback):
    """Remembers the logs that callbacks are given."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def train(model, folder, examples, epochs=2, steps=3, first=0, **options):
    """Fits with the callback; the step is what the optimizer has counted."""
    done = lambda: int(model.optimizer.iterations.numpy())  # noqa: E731
    board = TensorBoard(folder, done, examples, **options)
    seen = Seen()
    data = tf.data.Dataset.from_tensors(batch() if examples is None else examples).repeat()
    model.fit(
        data,
        initial_epoch=first,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[board, seen],
        shuffle=False,
        verbose=0,
    )
    return seen


class Read:
    """The summaries of a folder, as TensorBoard reads them."""

    def __init__(self, folder):
        self._events = EventAccumulator(str(folder), size_guidance={TENSORS: 0})
        self._events.Reload()
        self.tags = self._events.Tags()["tensors"]

    def steps(self, tag):
        return [event.step for event in self._events.Tensors(tag)]

    def values(self, tag):
        return [tf.make_ndarray(event.tensor_proto) for event in self._events.Tensors(tag)]

    def picture(self, tag):
        """The last picture of a name, on [0, 1]: width, height and the files come before it."""
        return tf.io.decode_png(self.values(tag)[-1][2]).numpy() / 255.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "new"
    keras.utils.set_random_seed(0)
    model, layer = bilevel()
    examples = batch()
    seen = train(model, folder, examples, pictures=2)
    return Read(folder), seen, model, layer, examples


# Curves


def test_each_step_has_its_loss_and_learning_rate(written):
    read, seen, model, _, _ = written
    assert read.steps("step/loss") == read.steps("step/learning_rate") == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(read.values("step/loss"), [b["loss"] for b in seen.batches])
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 20, alpha=0.1)
    expected = [float(schedule(step)) for step in range(1, 7)]  # that of the next update
    np.testing.assert_allclose(read.values("step/learning_rate"), expected, rtol=1e-6)


def test_each_epoch_has_all_that_keras_logs(written):
    read, seen, _, _, _ = written
    for name, value in seen.epochs[-1].items():
        assert read.steps(f"epoch/{name}") == [3, 6]
        np.testing.assert_allclose(read.values(f"epoch/{name}")[-1], value, rtol=1e-6)
    assert "epoch/psnr" in read.tags
    assert "epoch/bilevel_forward_steps" in read.tags


def test_after_a_resumption_each_step_counts_once(tmp_path):
    model = plain()
    start = [variable.numpy() for variable in model.variables]
    lost = train(model, tmp_path, None, epochs=3, steps=2)
    # Killed after six steps, and started again from a checkpoint of two.
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value + 0.1)
    model.optimizer.iterations.assign(2)
    again = train(model, tmp_path, None, epochs=4, steps=2, first=1)
    read = Read(tmp_path)
    assert read.steps("step/loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert read.steps("epoch/loss") == [2, 4, 6, 8]
    expected = [row["loss"] for row in [*lost.batches[:2], *again.batches]]
    np.testing.assert_allclose(read.values("step/loss"), expected, rtol=1e-6)
    assert lost.batches[2]["loss"] != pytest.approx(again.batches[0]["loss"], rel=1e-3)


def test_stopped_training_that_begins_anew_forgets_all(tmp_path):
    train(plain(), tmp_path, None, epochs=2, steps=2)
    train(plain(), tmp_path, None, epochs=1, steps=1)
    assert Read(tmp_path).steps("step/loss") == [1]


def test_rate_under_a_strategy_is_a_variable_of_many_devices(tmp_path):
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        model = plain()
    board = TensorBoard(tmp_path, lambda: 1)
    board.set_model(model)
    board.on_train_begin()
    board.on_train_batch_end(0, {"loss": 0.5})
    board.on_train_end()
    read = Read(tmp_path)
    assert read.values("step/learning_rate") == [pytest.approx(0.01)]
    assert read.values("step/loss") == [0.5]


# Pictures


def test_pictures_show_measurement_reconstruction_and_truth(written):
    read, _, model, _, (measurement, truth) = written
    assert [tag for tag in read.tags if tag.startswith("reconstruction/")] == [
        "reconstruction/0",
        "reconstruction/1",
    ]
    estimate = model(measurement)
    for number in range(2):
        expected = [measurement[number], estimate[number], truth[number]]
        expected = np.clip(np.concatenate(expected, axis=1), 0.0, 1.0)
        found = read.picture(f"reconstruction/{number}")
        np.testing.assert_allclose(found, expected, atol=1.01 / 255)
    assert read.steps("reconstruction/0") == [3, 6]


def test_filters_are_those_of_the_energy(written):
    read, _, _, layer, _ = written
    expected = filter_grid(layer.prior.coefficients().analysis.numpy())
    np.testing.assert_allclose(read.picture("filters/bilevel/analysis"), expected, atol=1.01 / 255)
    assert "filters/bilevel/synthesis" not in read.tags  # the same ones


def test_histograms_hold_the_steps_of_each_image(written):
    read, _, _, layer, (measurement, _) = written
    steps = layer.solve(measurement).steps.numpy()
    rows = read.values("solver/bilevel/steps")[-1]  # left, right, count
    assert rows[:, 2].sum() == len(steps)
    assert rows[0, 0] == steps.min()
    assert rows[-1, 1] == steps.max()
    residuals = read.values("solver/bilevel/log10_residual")[-1]
    assert -12 < residuals[0, 0] <= residuals[-1, 1] < -3


def test_pictures_only_after_so_many_epochs(tmp_path):
    train(plain(), tmp_path, batch(), epochs=5, steps=1, every=2)
    read = Read(tmp_path)
    assert read.steps("epoch/loss") == [1, 2, 3, 4, 5]
    assert read.steps("reconstruction/0") == [2, 4]


def test_measurements_with_data(tmp_path):
    examples = batch(with_data=True)
    inputs = [keras.Input((SIDE, SIDE, 1)) for _ in range(2)]
    outputs = keras.layers.Conv2D(1, 3, padding="same")(keras.layers.Concatenate()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    train(model, tmp_path, examples, epochs=1, steps=1)
    estimate = model(examples[0])
    expected = np.concatenate([examples[0][0][1], estimate[1], examples[1][1]], axis=1)
    found = Read(tmp_path).picture("reconstruction/1")
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1.01 / 255)


def test_measurement_that_is_no_image_is_shown_as_another(tmp_path):
    """The measurement is a spectrum; its inverse is shown."""
    image, spectrum = keras.Input((SIDE, SIDE, 1)), keras.Input((SIDE, 7), dtype="complex64")
    model = keras.Model((spectrum, image), keras.layers.Conv2D(1, 3, padding="same")(image))
    model.compile("sgd", "mse")
    y, truth = batch()
    given = tf.signal.rfft2d(truth[..., 0]), y
    train(
        model,
        tmp_path,
        (given, truth),
        epochs=1,
        steps=1,
        show=lambda measurement: tf.signal.irfft2d(measurement[0])[..., None],
    )
    found = Read(tmp_path).picture("reconstruction/0")
    np.testing.assert_allclose(found[:, :SIDE], truth[0], atol=1.01 / 255)
    np.testing.assert_allclose(found[:, -SIDE:], truth[0], atol=1.01 / 255)


def test_untied_filters_are_both_shown():
    prior = dk.priors.UntiedFieldsOfExperts(filters=2, kernel_size=3)
    cell = dk.layers.GradientStep(dk.operators.Identity(), prior)
    image = keras.Input((None, None, 3))
    model = keras.Model(image, dk.layers.Equilibrium(cell, name="untied")(image))
    prior.synthesis.assign(tf.random.stateless_normal(prior.synthesis.shape, (0, 0)))
    found = dict(learned_filters(model))
    assert list(found) == ["untied/analysis", "untied/synthesis"]
    kernels = prior.coefficients()
    np.testing.assert_array_equal(found["untied/analysis"], kernels.analysis)
    np.testing.assert_array_equal(found["untied/synthesis"], kernels.synthesis)
    assert np.abs(found["untied/analysis"] - found["untied/synthesis"]).max() > 0.01


def test_any_cell_and_nested_models(tmp_path):
    """A convolutional cell of one's own, behind another layer."""

    class Cell(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.convolution = keras.layers.Conv2D(1, 3, padding="same", name="inner")

        def call(self, z, y):
            return y + 0.1 * self.convolution(z)

    layer = dk.layers.Equilibrium(Cell(), solver="picard", name="own")
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, layer(keras.layers.Rescaling(0.5)(image)))
    model.compile("sgd", "mse")
    measurement, truth = batch()
    train(model, tmp_path, (measurement, truth), epochs=1, steps=1)
    read = Read(tmp_path)
    (name,) = (tag for tag in read.tags if tag.startswith("filters/own/"))
    assert read.picture(name).shape == (3, 3, 1)
    rows = read.values("solver/own/steps")[-1]
    steps = layer.solve(0.5 * measurement).steps.numpy()
    assert (rows[0, 0], rows[-1, 1]) == (steps.min(), steps.max())


def test_model_without_a_solver_has_curves_and_pictures(tmp_path):
    train(plain(), tmp_path, batch(), epochs=1, steps=2)
    read = Read(tmp_path)
    assert read.steps("step/loss") == [1, 2]
    assert {tag.split("/")[0] for tag in read.tags} == {"step", "epoch", "reconstruction"}


# Files


def test_one_worker_writes():
    assert TensorBoard.chief_only
    assert TensorBoard("unused", int).get_state() == {}


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="logs of TensorBoard to .*file/board"):
        train(plain(), tmp_path / "file" / "board", None, epochs=1, steps=1)


# Arrays


def test_filters_are_scaled_each_by_itself_about_grey():
    kernel = np.zeros((3, 2, 1, 3), np.float32)
    kernel[0, 0, 0, 0], kernel[1, 1, 0, 0] = 4.0, -2.0
    kernel[2, 1, 0, 1] = -0.001
    grid = filter_grid(kernel)
    assert grid.shape == (2 * 4 - 1, 2 * 3 - 1, 1)
    assert grid[0, 0, 0] == 1.0
    assert grid[1, 1, 0] == 0.25
    assert grid[2, 3 + 1, 0] == 0.0
    assert (grid[4:, :2] == 0.5).all()  # a filter of zeros
    assert (grid[3] == 1.0).all()  # between the tiles
