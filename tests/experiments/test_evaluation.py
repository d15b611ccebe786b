"""Rows of results are what the metrics and the solver say of each image."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import deq_keras as dk
from experiments.evaluation import (
    LEAST_SIDE,
    evaluate,
    loss_on,
    mean,
    quality_against_time,
    residual_curve,
)
from trainers.callbacks.model_solver import LayerSolver, ModelSolver, solver_of, solving_layers

SHAPES = [(19, 16), (14, 23), (LEAST_SIDE, 12)]
NAMES = ["a", "b", "c"]


def images(channels=1):
    rng = np.random.default_rng(0)
    pairs = []
    for height, width in SHAPES:
        truth = rng.uniform(size=(1, height, width, channels)).astype(np.float32)
        noise = 0.1 * rng.normal(size=truth.shape).astype(np.float32)
        pairs.append((tf.constant(truth + noise), tf.constant(truth)))
    return pairs


def layer(tolerance=1e-5, max_steps=1000):
    return dk.layers.Variational(
        dk.operators.Identity(),
        dk.priors.TotalVariation(),
        solver=dk.solvers.Nesterov(tolerance=tolerance, max_steps=max_steps),
    )


@functools.cache
def solver():
    """That of a layer of images of one channel: its graphs serve all tests."""
    return LayerSolver(layer())


def _graph(function):
    """Its graph, in which the loops of a solver are fast; not converted, as in a Keras layer."""
    return tf.function(function, autograph=False, reduce_retracing=True)


def scores(truth, estimate):
    """PSNR, SSIM and mean square error of one image, by scikit-image and NumPy."""
    truth, estimate = np.float64(truth), np.float64(estimate)
    similarity = structural_similarity(
        truth,
        estimate,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    psnr = peak_signal_noise_ratio(truth, estimate, data_range=1.0)
    return psnr, similarity, np.mean((estimate - truth) ** 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_equal_direct_computation(channels):
    tested, pairs = LayerSolver(layer()), images(channels)
    summary, rows, estimates = evaluate(tested, pairs, NAMES)
    assert [row["name"] for row in rows] == NAMES
    for row, estimate, (measurement, truth) in zip(rows, estimates, pairs, strict=True):
        solution = tested.solve(measurement)
        np.testing.assert_array_equal(estimate, solution.value[0])
        psnr, ssim, loss = scores(truth[0], estimate)
        assert row["psnr"] == pytest.approx(psnr, rel=1e-5)
        # scikit-image crops a margin instead of leaving windows out: the same windows.
        assert row["ssim"] == pytest.approx(ssim, abs=1e-5)
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert row["steps"] == int(solution.steps[0])
        assert row["residual"] == float(solution.residual[0])
        assert row["converged"] is True
        assert row["seconds"] > 0
    columns = {"psnr": "psnr", "ssim": "ssim", "test_loss": "loss", "forward_steps": "steps"}
    columns |= {"solve_seconds": "seconds", "converged": "converged"}
    assert summary == {
        key: pytest.approx(np.mean([row[column] for row in rows]))
        for key, column in columns.items()
    }


@pytest.mark.parametrize("with_data", [False, True])
def test_without_a_layer_the_measurement_is_judged(with_data):
    pairs = images()
    given = [((y, tf.ones_like(y)) if with_data else y, truth) for y, truth in pairs]
    summary, rows, estimates = evaluate(None, given, NAMES)
    for row, estimate, (y, truth) in zip(rows, estimates, pairs, strict=True):
        np.testing.assert_array_equal(estimate, y[0])
        assert row["psnr"] == pytest.approx(scores(truth[0], y[0])[0], rel=1e-5)
        assert "steps" not in row
    assert summary["forward_steps"] is summary["solve_seconds"] is summary["converged"] is None
    assert loss_on(None, given) == pytest.approx(np.mean([row["loss"] for row in rows]), rel=1e-5)


def test_measurement_that_is_no_image_is_judged_by_what_is_shown_of_it():
    """The measurement has half the size; what is shown repeats each of its pixels."""

    def picture(y):
        height, width = y.shape[1:3]
        tiles = tf.tile(y[:, :, None, :, None], [1, 1, 2, 1, 2, 1])
        return tf.reshape(tiles, (1, 2 * height, 2 * width, 1))

    truths = [truth[:, :12, :12] for _, truth in images()[:2]]
    pairs = [(truth[:, ::2, ::2], truth) for truth in truths]
    _, rows, shown = evaluate(None, pairs, NAMES[:2], picture=picture)
    for row, estimate, (y, truth) in zip(rows, shown, pairs, strict=True):
        np.testing.assert_array_equal(estimate[::2, 1::2], y[0])
        assert row["loss"] == pytest.approx(np.mean((estimate - truth[0]) ** 2), rel=1e-5)
    assert loss_on(None, pairs, picture) == pytest.approx(np.mean([r["loss"] for r in rows]))


def test_images_that_did_not_converge_are_counted():
    summary, rows, _ = evaluate(LayerSolver(layer(tolerance=1e-6, max_steps=2)), images(), NAMES)
    assert summary["converged"] == 0.0
    assert [row["steps"] for row in rows] == [2, 2, 2]


def test_a_name_for_each_image():
    with pytest.raises(ValueError, match="zip"):
        evaluate(None, images(), NAMES[:2])


def test_least_side_is_the_window_of_ssim():
    enough, small = (tf.zeros((1, LEAST_SIDE - cut, 20, 1)) for cut in (0, 1))
    assert float(dk.metrics.ssim(enough, enough)[0]) == 1.0
    with pytest.raises(ValueError, match=str(LEAST_SIDE)):
        dk.metrics.ssim(small, small)


def test_loss_is_the_mean_over_all_images_whatever_the_batches():
    rng = np.random.default_rng(1)
    truth = rng.uniform(size=(5, 12, 12, 1)).astype(np.float32)
    y = truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32)
    expected = np.mean((solver().solve(tf.constant(y)).value - truth) ** 2)
    for cuts in ([5], [2, 5], [1, 4, 5]):
        starts = [0, *cuts[:-1]]
        pieces = [slice(start, stop) for start, stop in zip(starts, cuts, strict=True)]
        batches = [(tf.constant(y[piece]), tf.constant(truth[piece])) for piece in pieces]
        assert loss_on(solver(), batches) == pytest.approx(expected, rel=1e-4)


def test_residual_curve_is_the_history_of_the_solver():
    y, _ = images()[0]
    curve = residual_curve(solver(), y)
    # In a graph too: out of one the same operations round in another way.
    solution = _graph(lambda y: solver().layer.solve(y, return_history=True))(y)
    history = solution.history
    assert len(curve) == int(solution.steps[0])
    np.testing.assert_array_equal(np.float32(curve), history[: len(curve), 0])
    assert curve[-1] == float(solution.residual[0]) <= 1e-5 < min(curve[:-1])


def test_quality_against_time_doubles_the_steps_until_the_solver_stops():
    y, truth = images()[0]
    curve = quality_against_time(solver(), y, truth)
    tested = solver().layer
    limited = _graph(lambda y, most: tested.solve(y, max_steps=most))
    needed = int(limited(y, tf.constant(tested.solver.max_steps)).steps[0])
    powers = [2**k for k in range(20) if 2**k < needed]
    assert curve["steps"] == [*powers, needed]
    assert all(seconds > 0 for seconds in curve["seconds"])
    for steps, psnr in zip(curve["steps"], curve["psnr"], strict=True):
        value = limited(y, tf.constant(steps)).value
        assert psnr == pytest.approx(float(dk.metrics.psnr(truth, value)[0]), rel=1e-6)


def test_quality_against_time_ends_without_convergence():
    curve = quality_against_time(solver(), *images()[0], most=5)
    assert curve["steps"] == [1, 2, 4]


class Growing(keras.layers.Layer):
    """`f(z, y) = 10 z + 1`, which leaves the numbers of float32 after 39 steps."""

    def call(self, z, y):
        return 10.0 * z + 1.0


def test_quality_against_time_of_a_map_that_diverges():
    diverging = dk.layers.Equilibrium(Growing(), solver="picard")
    y, truth = images()[0]
    curve = quality_against_time(LayerSolver(diverging), y, truth)
    assert len(curve["steps"]) == len(curve["psnr"]) == len(curve["seconds"])
    assert curve["steps"] == sorted(set(curve["steps"]))
    assert curve["steps"][-1] < 64


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"a": 1.0}, {"a": 3.0}], 2.0),
        ([{"a": 1.0}, {"a": None}, {}], 1.0),
        ([{"a": True}, {"a": False}], 0.5),
        ([{"b": 1.0}], None),
        ([], None),
    ],
)
def test_mean_over_the_rows_that_have_it(rows, expected):
    assert mean(rows, "a") == expected


# Whole models

SIDE = 12


def deblurring(name="inner"):
    blur = dk.operators.GaussianBlur(kernel_size=3, stddev=1.0)
    return dk.layers.Variational(blur, dk.priors.TotalVariation(), solver="picard", name=name)


def square_images():
    rng = np.random.default_rng(2)
    truth = rng.uniform(size=(3, SIDE, SIDE, 1)).astype(np.float32)
    return tf.constant(truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32)), truth


def test_model_that_is_one_layer_is_that_layer():
    tested = layer()
    model = keras.Sequential([keras.Input((None, None, 1)), tested])
    assert solving_layers(model) == [tested]
    found = solver_of(model)
    assert isinstance(found, LayerSolver)
    assert found.layer is tested


def test_layer_among_others_is_seen_with_its_own_input():
    image = keras.Input((SIDE, SIDE, 1))
    darker = keras.layers.Rescaling(0.5)(image)
    model = keras.Model(image, keras.layers.Rescaling(2.0)(solver().layer(darker)))
    y, truth = square_images()
    whole = solver_of(model)
    assert isinstance(whole, ModelSolver)
    # In a graph of the same sizes: that for all sizes rounds in another way.
    found, alone = whole.solve(y), _graph(solver().layer.solve)(0.5 * y)
    np.testing.assert_allclose(found.value, _graph(model)(y), atol=1e-6)
    np.testing.assert_array_equal(found.steps, alone.steps)
    np.testing.assert_array_equal(found.residual, alone.residual)
    pairs = [(y[n : n + 1], truth[n : n + 1]) for n in range(3)]
    _, rows, estimates = evaluate(whole, pairs, NAMES, bounds=True)
    assert [row["steps"] for row in rows] == alone.steps.numpy().tolist()
    assert all(row["seconds"] > 0 and "error_bound" not in row for row in rows)
    np.testing.assert_allclose(estimates, found.value, atol=1e-5)


@pytest.mark.slow
def test_several_layers_add_up():
    first, second = layer(), layer()
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, second(first(image)))
    y, _ = square_images()
    found, each = ModelSolver(model).solve_each(y)
    assert list(each) == [layer.name for layer in solving_layers(model)]
    parts = [_graph(first.solve)(y), _graph(second.solve)(_graph(first)(y))]
    np.testing.assert_array_equal(found.steps, parts[0].steps + parts[1].steps)
    np.testing.assert_allclose(
        found.residual, np.maximum(parts[0].residual, parts[1].residual), rtol=1e-3
    )
    assert found.converged.numpy().all()


def test_a_layer_in_a_model_in_a_model_is_seen():
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 1)), solver().layer])
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, inner(keras.layers.Rescaling(0.5)(image)))
    y, _ = square_images()
    whole = solver_of(model)
    assert isinstance(whole, ModelSolver)
    alone = _graph(solver().layer.solve)(0.5 * y)
    np.testing.assert_array_equal(whole.solve(y).steps, alone.steps)


def test_model_that_solves_nothing_has_no_columns():
    image = keras.Input((SIDE, SIDE, 1))
    whole = solver_of(keras.Model(image, keras.layers.Rescaling(0.5)(image)))
    y, truth = square_images()
    assert whole.solve(y).steps is None
    summary, rows, _ = evaluate(whole, [(y[:1], truth[:1])], ["a"])
    assert summary["forward_steps"] is summary["converged"] is None
    assert set(rows[0]) == {"name", "seconds", "psnr", "ssim", "loss"}


def test_of_several_outputs_the_last_is_the_image():
    image = keras.Input((SIDE, SIDE, 1))
    model = keras.Model(image, [keras.layers.Rescaling(5.0)(image), image])
    y, _ = square_images()
    np.testing.assert_array_equal(ModelSolver(model).solve(y).value, y)


# Bounds


def test_error_bound_holds():
    """The misfit is strongly convex with modulus 1, so there is a certificate."""
    pairs = images()
    exact = _graph(layer(tolerance=1e-7, max_steps=20000).solve)
    _, rows, estimates = evaluate(LayerSolver(layer(tolerance=1e-3)), pairs, NAMES, bounds=True)
    for row, estimate, (y, _) in zip(rows, estimates, pairs, strict=True):
        error = np.sqrt(np.mean((estimate - exact(y).value[0]) ** 2))
        assert 0 < error <= row["error_bound"] < 0.1


def test_without_a_certificate_there_is_no_bound():
    pairs = [(y[:, :11, :11], truth[:, :11, :11]) for y, truth in images()]
    _, rows, _ = evaluate(LayerSolver(deblurring()), pairs, NAMES, bounds=True)
    assert rows[0]["error_bound"] is None
    assert mean(rows, "error_bound") is None
