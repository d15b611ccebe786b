"""Figures: what they show, as matplotlib's own objects say, and what they leave alone."""

import ast
import os
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
TRUTH = RNG.random((40, 60, 1))


def images(figure):
    """The arrays that a figure shows, by the title of their panel if it has one."""
    return [(axes.get_title(), im.get_array()) for axes in figure.axes for im in axes.get_images()]


def test_reconstructions_have_details_errors_and_psnr():
    bad, good = TRUTH + 0.2, TRUTH + 0.1
    small = RNG.random((20, 30, 1))
    pictures = {"small": small, "bad": bad, "good": good}
    figure = dk.plot.reconstructions(pictures, TRUTH, zoom=(8, 12, 16), heading="price$^$.png")
    shown = images(figure)
    titles = [title for title, _ in shown if title]
    assert titles == ["small", "bad\n13.98 dB", "good\n20.00 dB", "Truth"]
    arrays = [array for _, array in shown]
    # The small one is shown whole; the others also have a detail, and the two estimates an error.
    assert [a.shape for a in arrays[:4]] == [(20, 30), (40, 60), (40, 60), (40, 60)]
    assert [a.shape for a in arrays[4:]] == [(16, 16)] * 3 + [(40, 60)] * 2
    np.testing.assert_array_equal(arrays[6], TRUTH[8:24, 12:28, 0])
    expected = np.abs(np.clip(good, 0, 1) - TRUTH)[..., 0]
    np.testing.assert_allclose(arrays[-1], expected)
    limits = {im.get_clim() for axes in figure.axes for im in axes.get_images()[:1]}
    assert len(limits) == 2  # pictures on [0, 1], and both errors on one scale
    figure.savefig(os.devnull, format="png")  # a name with a $ is no formula


def test_reconstructions_of_a_batch_without_a_truth():
    colour = tf.constant(RNG.random((24, 24, 3)), tf.float32)
    figure = dk.plot.reconstructions({"only": colour}, zoom=None)
    ((title, array),) = images(figure)
    assert title == "only"
    np.testing.assert_allclose(array, colour)
    assert len(dk.plot.reconstructions({"a": colour, "b": 0.5 * colour}).axes) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({},), "at least one picture"),
        (({"batch": TRUTH[None]},), "remove the batch axis"),
        (({"a": TRUTH}, None, "all"), "`zoom` to be 'auto', None or"),
        (({"a": TRUTH}, None, (0, 50, 16)), "lie in a picture of 40 x 60"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dk.plot.reconstructions(*arguments)


def test_filters_are_sorted_and_matched():
    kernels = RNG.normal(size=(5, 3, 3, 1)) * np.array([1, 5, 2, 4, 3])[:, None, None, None]
    figure = dk.plot.filters({"analysis": kernels, "synthesis": -kernels}, most=4)
    (first, tiles), (second, negative) = images(figure)
    assert (first, second) == ("analysis", "synthesis")
    largest = kernels[1, ..., 0]
    np.testing.assert_allclose(tiles[:3, :3], largest / np.abs(largest).max())
    np.testing.assert_allclose(np.nan_to_num(tiles), -np.nan_to_num(negative))
    assert tiles.shape == (7, 7)  # four of the five


def test_filters_of_colour_images():
    prior = dk.priors.FieldsOfExperts(filters=4, kernel_size=3, filters_initializer="random")
    prior.build((None, 16, 16, 3))
    ((_, tiles),) = images(dk.plot.filters(prior))
    assert tiles.shape == (7, 7, 3)
    assert tiles.min() >= 0
    assert tiles.max() <= 1


@pytest.mark.parametrize("draw", [dk.plot.filters, dk.plot.potentials])
def test_priors_that_have_nothing_to_show(draw):
    with pytest.raises(ValueError, match="that was built. Received FieldsOfExperts"):
        draw(dk.priors.FieldsOfExperts(4, 3))
    plain = dk.priors.TotalVariation()
    plain.build((None, 8, 8, 1))
    with pytest.raises(ValueError, match=r"TotalVariation\(\) (has no filters|applies no)"):
        draw(plain)


PRIORS = {
    "experts": lambda: dk.priors.FieldsOfExperts(3, 3, sharpness=20.0, use_bias=True),
    "soft": lambda: dk.priors.FieldsOfExperts(3, 3, activation="soft_shrinkage", sharpness=2.0),
    "affine": lambda: dk.priors.AffineExperts(units=3, activation="tanh", sharpness=3.0),
    "ridge": lambda: dk.priors.RidgeRegularizer(filters=(2, 3), weak_convexity=0.9),
}


@pytest.mark.parametrize("name", PRIORS)
def test_an_activation_is_the_derivative_of_its_potential(name):
    prior = PRIORS[name]()
    prior.build((None, 16, 16, 1))
    t = tf.linspace(-0.4, 0.4, 41)
    with tf.GradientTape() as tape:
        tape.watch(t)
        curves = prior.curves(t)
        total = tf.reduce_sum(curves["potential"], axis=0)
    assert curves["potential"].shape == curves["activation"].shape == (3, 41)
    slope = tape.gradient(total, t)
    np.testing.assert_allclose(slope, tf.reduce_sum(curves["activation"], axis=0), atol=1e-5)


def test_curves_are_what_the_energy_adds_up():
    prior = dk.priors.AffineExperts(units=1, activation="tanh", sharpness=3.0)
    prior.build((None, 2, 2, 1))
    image = tf.constant(RNG.random((1, 2, 2, 1)), tf.float32)
    (filters,) = prior.pictures()["analysis"]
    response = tf.reduce_sum(filters * image[0])
    curve = prior.curves(response[None])["potential"]
    np.testing.assert_allclose(curve[0], prior.energy(image), rtol=1e-5)


def test_potentials_of_an_untied_prior_and_of_a_noise_level():
    untied = dk.priors.UntiedFieldsOfExperts(3, 3)
    untied.build((None, 8, 8, 1))
    (axes,) = dk.plot.potentials(untied).axes
    assert axes.get_ylabel() == "activation"
    assert len(axes.get_lines()) == 3
    noisy = dk.priors.RidgeRegularizer(filters=(2, 3), noise_levels=(0.05, 0.2))
    noisy.build((None, 16, 16, 1))
    first, second = (
        dk.plot.potentials(noisy, noise_level=level).axes[0].get_lines()[0].get_ydata()
        for level in (0.05, 0.2)
    )
    assert not np.allclose(first, second)


def test_residuals_end_where_images_stop():
    prior = dk.priors.FieldsOfExperts(4, 3, sharpness=50.0)
    layer = dk.layers.Variational(dk.operators.Identity(), prior, solver="nesterov")
    y = tf.stack([tf.ones((12, 12, 1)), tf.constant(TRUTH[:12, :12], tf.float32)])
    solution = layer.solve(y, return_history=True)
    axes = dk.plot.residuals({"Nesterov": solution}, tolerance=1e-5).axes[0]
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    lengths = [len(line.get_xdata()) for line in drawn[:2]]
    steps = solution.steps.numpy()
    assert steps[0] == 1  # a constant image is its own denoised one, and has a dot alone
    assert lengths[0] == steps[1]
    last = drawn[0].get_ydata()[-1]
    np.testing.assert_allclose(last, solution.residual[1])
    assert axes.get_legend().get_texts()[0].get_text() == "Nesterov"


def test_residuals_need_a_history():
    solution = dk.solvers.Picard().solve(lambda z: 0.5 * z, tf.ones((1, 2)))
    with pytest.raises(ValueError, match="return_history=True"):
        dk.plot.residuals(solution)


def test_nothing_is_left_behind_in_matplotlib():
    before = dict(matplotlib.rcParams)
    dk.plot.reconstructions({"a": TRUTH}, TRUTH)
    assert dict(matplotlib.rcParams) == before


def test_the_package_is_imported_without_matplotlib():
    files = list((ROOT / "deq_keras").rglob("*.py"))
    assert files
    for path in files:
        for node in ast.parse(path.read_text("utf-8")).body:  # of functions when they are called
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [getattr(node, "module", None), *(alias.name for alias in node.names)]
                assert not any(str(name).startswith("matplotlib") for name in names), path


def test_without_matplotlib_plots_say_what_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "deq_keras\[plot\]"'):
        dk.plot.reconstructions({"a": np.ones((4, 4))})
