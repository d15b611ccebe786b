"""Published models from tensors of their names and shapes: each against its formula, written here.

The tensors are made in the tests. The formulas are evaluated with SciPy and NumPy, in the layout of
PyTorch: images `(channels, height, width)`, filters `(filters, channels, height, width)`.
"""

import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import convolve2d, correlate2d

from deq_keras import presets, testing
from deq_keras.presets import pytorch

FREE = "conv_layer.conv_layers.{}.parametrizations.weight.original"


def convolved(image, weight):
    """A convolution of PyTorch with zeros around the image, which keeps its size."""
    rows = ([correlate2d(a, f, "same") for a, f in zip(image, fs, strict=True)] for fs in weight)
    return np.stack([sum(parts) for parts in rows])


def adjoint(responses, weight):
    """Its adjoint."""
    return convolved(responses, weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


def through(image, weights, function=convolved):
    for weight in weights:
        image = function(image, weight)
    return image


def without_mean(weight):
    return weight - weight.mean(axis=(1, 2, 3), keepdims=True)


def normal(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def image(height=13, width=11, channels=1):
    return np.random.default_rng(5).uniform(size=(channels, height, width))


def batch(u):
    return tf.constant(u.transpose(1, 2, 0)[None])


def integral(t, knots, values):
    """Of the spline with these values at the knots from 0 to `t`, by the trapezoidal rule."""
    points = np.unique(np.concatenate([[0.0, t], knots]))
    points = points[(points >= min(t, 0.0)) & (points <= max(t, 0.0))]
    return np.sign(t) * np.trapezoid(np.interp(points, knots, values), points)


# Ridge regularisers.


def crr_tensors(filters=4, knots=9):
    shapes = {FREE.format(0): (2, 1, 3, 3), FREE.format(1): (filters, 2, 3, 3)}
    tensors = normal(shapes)
    rng = np.random.default_rng(1)
    tensors["activation.coefficients_vect"] = 0.02 * rng.normal(size=filters * knots).cumsum()
    return tensors | {"lmbd": np.float32(3.0), "mu": np.float32(1.7), "L": np.float32(9.0)}


def crr_splines(tensors, filters=4):
    values = tensors["activation.coefficients_vect"].reshape(filters, -1)
    steps = np.maximum(np.diff(values, axis=1), 0.0)
    steps[:, [0, -1]] = 0.0
    values = np.concatenate([np.zeros((filters, 1)), steps.cumsum(axis=1)], axis=1)
    return values - values[:, values.shape[1] // 2, None]


def test_crr_is_its_formula():
    tensors, u = crr_tensors(), image()
    prior = pytorch.crr(tensors, reach=0.2, dtype="float64")
    weights = [without_mean(tensors[FREE.format(i)]) for i in range(2)]
    splines, knots = crr_splines(tensors), np.linspace(-0.2, 0.2, 9)
    strength, scaling = (float(tensors[name]) for name in ("lmbd", "mu"))
    responses = through(scaling * u, weights)
    slopes = [np.interp(r, knots, values) for r, values in zip(responses, splines, strict=True)]
    expected = strength * through(np.stack(slopes), weights[::-1], adjoint)
    found = prior.gradient(batch(u))
    np.testing.assert_allclose(found[0, ..., 0], expected[0], rtol=1e-9, atol=1e-10)
    energy = (
        strength
        / scaling
        * sum(
            integral(t, knots, values)
            for r, values in zip(responses, splines, strict=True)
            for t in r.ravel()
        )
    )
    np.testing.assert_allclose(prior.energy(batch(u))[0], energy, rtol=1e-9)
    assert prior.is_convex
    assert float(prior.strong_convexity()) == 0.0


def wcrr_tensors(filters=4, knots=11):
    shapes = {FREE.format(0): (2, 1, 3, 3), "conv_layer.conv_layers.1.weight": (filters, 2, 3, 3)}
    shapes |= {"spline_scaling.coefficients": (filters, 3)}
    tensors = normal(shapes)
    rng = np.random.default_rng(1)
    for part, ramp in (("cvx", 0.0), ("ccv", 0.12)):
        values = np.linspace(-ramp, ramp, knots) + 0.02 * rng.normal(size=(1, knots)).cumsum(1)
        tensors[f"activation_{part}.coefficients"] = values
    return tensors | {"mu_": np.float32(-0.7)}


def wcrr_spline(tensors, part, reach):
    """The values at the knots: slopes in [0, 1], none at the ends, odd."""
    values = tensors[f"activation_{part}.coefficients"][0]
    width = 2 * reach / (len(values) - 1)
    slopes = np.clip(np.diff(values) / width, 0.0, 1.0)
    slopes[[0, -1]] = 0.0
    values = np.concatenate([[0.0], slopes.cumsum() * width])
    return 0.5 * (values - values[::-1])


@pytest.mark.parametrize("rho", [1.0, 0.0])
def test_wcrr_is_its_formula(rho):
    tensors, u, noise = wcrr_tensors(), image(), 17.0
    prior = pytorch.wcrr(tensors, rho, reach=0.15, largest_noise=30 / 255, dtype="float64")
    weights = [
        without_mean(tensors[FREE.format(0)]),
        tensors["conv_layer.conv_layers.1.weight"],
    ]
    # The norm is that of the spectrum of an impulse that went through all layers and back.
    impulse = np.zeros((1, 9, 9))
    impulse[0, 4, 4] = 1.0
    back = through(through(impulse, weights), weights[::-1], adjoint)
    square = np.abs(np.fft.fft2(back[0], (267, 267))).max()
    weights[0] = weights[0] / np.sqrt(square)
    logarithm = tensors["spline_scaling.coefficients"]
    levels = np.linspace(0.0, 30.0, 3)
    scaling = np.exp([np.interp(noise, levels, row) for row in logarithm]) / (noise + 1e-5)
    knots = np.linspace(-0.15, 0.15, 11)
    values = np.exp(float(tensors["mu_"])) * wcrr_spline(tensors, "cvx", 0.15)
    values = values - rho * wcrr_spline(tensors, "ccv", 0.15)
    responses = scaling[:, None, None] * through(u, weights)
    slopes = np.interp(responses, knots, values) / scaling[:, None, None]
    expected = through(slopes, weights[::-1], adjoint)
    level = tf.constant([noise / 255], tf.float64)
    found = prior.gradient(batch(u), level)
    np.testing.assert_allclose(found[0, ..., 0], expected[0], rtol=1e-9, atol=1e-10)
    energy = sum(
        integral(t, knots, values) / alpha**2
        for r, alpha in zip(responses, scaling, strict=True)
        for t in r.ravel()
    )
    np.testing.assert_allclose(prior.energy(batch(u), level)[0], energy, rtol=1e-9)
    assert prior.is_convex == (rho == 0.0)
    # The norm that is certified is not below the published one, which leaves borders out.
    assert (np.diff(values) < 0).any() == (rho > 0)
    assert float(prior.strong_convexity()) <= min(0.0, np.diff(values).min() / 0.03)


def test_a_converted_prior_is_a_preset(tmp_path):
    prior = pytorch.wcrr(wcrr_tensors())
    card = {**presets.card("wcrr_bsd400"), "channels": 1}
    presets.save(prior, tmp_path / "mine", card)
    again, u = presets.load(tmp_path / "mine"), tf.cast(batch(image()), tf.float32)
    level = tf.constant([0.1])
    np.testing.assert_array_equal(again.gradient(u, level), prior.gradient(u, level))


# Total deep variation.


def tdv_tensors(count=3, blocks=2, scales=3):
    shapes = {"K1.weight": (count, 1, 3, 3), "KN.weight": (1, count, 1, 1)}
    for block in range(blocks):
        ways = [(s, w) for s in range(scales) for w in (0, 1) if s < scales - 1 or not w]
        places = [f"mb.{s}.{w}.conv{i}" for s, w in ways for i in (1, 2)]
        places += [f"conv_{way}.{s}" for way in ("down", "up") for s in range(scales - 1)]
        shapes |= {f"mb.{block}.{place}.weight": (count, count, 3, 3) for place in places}
    tensors = {name: 0.3 * value for name, value in normal(shapes).items()}
    tensors["K1.weight"] = without_mean(tensors["K1.weight"])
    same = {"K1.mask": np.ones((1, 1, 3, 3)), "mb.0.conv_down.0.blur": np.ones((1, 1, 5, 5))}
    return tensors | same


def tdv_energy(u, tensors, blocks=2, scales=3):
    binomial = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256

    def beyond(x, side):
        return np.pad(x, [(0, 0), (side, side), (side, side)], "symmetric")

    def same(x, weight):
        return convolved(beyond(x, 1), weight)[:, 1:-1, 1:-1]

    def residual(x, name):
        inner, outer = (tensors[f"{name}.conv{i}.weight"] for i in (1, 2))
        return x + same(0.5 * np.log(1 + same(x, inner) ** 2), outer)

    def blurred(weight):
        return np.stack([[convolve2d(f, binomial) for f in fs] for fs in weight])

    def lowered(x, weight):
        return convolved(beyond(x, 3), blurred(weight))[:, 3:-3:2, 3:-3:2]

    def raised(x, weight, like):
        """The adjoint of `lowered`, as a matrix: pixel by pixel."""
        found = np.zeros_like(like)
        for place in np.ndindex(like.shape):
            one = np.zeros_like(like)
            one[place] = 1.0
            found[place] = np.sum(lowered(one, weight) * x)
        return found

    x = [same(u, tensors["K1.weight"]), *[None] * (scales - 1)]
    for b in range(blocks):
        for i in range(scales):
            if i:
                down = lowered(x[i - 1], tensors[f"mb.{b}.conv_down.{i - 1}.weight"])
                x[i] = down if x[i] is None else x[i] + down
            x[i] = residual(x[i], f"mb.{b}.mb.{i}.0")
        for i in reversed(range(scales - 1)):
            up = raised(x[i + 1], tensors[f"mb.{b}.conv_up.{i}.weight"], x[i])
            x[i] = residual(x[i] + up, f"mb.{b}.mb.{i}.1")
    return np.einsum("fyx,f->", x[0], tensors["KN.weight"].ravel()) / len(x[0])


@pytest.mark.parametrize(("blocks", "scales"), [(2, 2), (1, 3)])
def test_tdv_is_its_formula(blocks, scales):
    tensors, u = tdv_tensors(2, blocks, scales), image(6, 5)
    prior = pytorch.tdv(tensors, dtype="float64")
    expected = tdv_energy(u, tensors, blocks, scales)
    np.testing.assert_allclose(prior.energy(batch(u))[0], expected, rtol=1e-10)


def test_the_gradient_of_tdv_is_that_of_its_energy():
    prior = pytorch.tdv(tdv_tensors(2), dtype="float64")
    u = batch(image(6, 5))
    testing.gradient_test(prior.gradient, u, directions=1)
    slope = prior.gradient(u)
    step = 1e-5 * slope / tf.norm(slope)
    change = prior.energy(u + step) - prior.energy(u - step)
    np.testing.assert_allclose(change, [2e-5 * tf.norm(slope)], rtol=1e-7)


def test_first_filters_of_tdv_have_no_means():
    tensors = tdv_tensors()
    tensors["K1.weight"] = tensors["K1.weight"] + 0.1
    with pytest.raises(ValueError, match="without means"):
        pytorch.tdv(tensors)


# DRUNet.


def drunet_tensors(filters=(3, 4, 5), blocks=2, channels=1):
    shapes = {"m_head.weight": (filters[0], channels + 1, 3, 3)}
    shapes |= {"m_tail.weight": (channels, filters[0], 3, 3)}
    groups = [(f"m_down{i + 1}", 0, c) for i, c in enumerate(filters[:-1])]
    groups += [("m_body", 0, filters[-1])]
    groups += [(f"m_up{i + 1}", 1, c) for i, c in enumerate(filters[:-1])]
    for name, first, count in groups:
        for i in range(blocks):
            for j in (0, 2):
                shapes[f"{name}.{first + i}.res.{j}.weight"] = (count, count, 3, 3)
    for i, pair in enumerate(zip(filters, filters[1:], strict=False), 1):
        shapes[f"m_down{i}.{blocks}.weight"] = (*pair[::-1], 2, 2)
        shapes[f"m_up{i}.0.weight"] = (*pair[::-1], 2, 2)
    return {name: 0.3 * value for name, value in normal(shapes).items()}


def drunet_denoised(u, noise, tensors, levels=3, blocks=2):
    def residual(x, name, first=0):
        for i in range(first, first + blocks):
            inner, outer = (tensors[f"{name}.{i}.res.{j}.weight"] for j in (0, 2))
            x = x + convolved(np.maximum(convolved(x, inner), 0.0), outer)
        return x

    def halved(x, weight):
        pixels = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2)
        return np.einsum("cyixj,fcij->fyx", pixels, weight)

    def doubled(x, weight):
        pixels = np.einsum("cyx,cfij->fyixj", x, weight)
        return pixels.reshape(len(pixels), 2 * x.shape[1], 2 * x.shape[2])

    x = np.concatenate([u, np.full((1, *u.shape[1:]), noise)])
    passed = [convolved(x, tensors["m_head.weight"])]
    for i in range(1, levels):
        x = residual(passed[-1], f"m_down{i}")
        passed.append(halved(x, tensors[f"m_down{i}.{blocks}.weight"]))
    x = residual(passed[-1], "m_body")
    for i in range(levels - 1, 0, -1):
        x = residual(doubled(x + passed.pop(), tensors[f"m_up{i}.0.weight"]), f"m_up{i}", 1)
    return convolved(x + passed.pop(), tensors["m_tail.weight"])


@pytest.mark.parametrize("channels", [1, 3])
def test_drunet_is_its_formula(channels):
    tensors, u = drunet_tensors(channels=channels), image(8, 12, channels)
    denoiser = pytorch.drunet(tensors, dtype="float64")
    found = denoiser([batch(u), tf.constant([0.1], tf.float64)])
    expected = drunet_denoised(u, 0.1, tensors)
    np.testing.assert_allclose(found[0], expected.transpose(1, 2, 0), rtol=1e-9, atol=1e-9)


# Errors.

CASES = {
    "crr": (crr_tensors, FREE.format(1)),
    "wcrr": (wcrr_tensors, "activation_ccv.coefficients"),
    "tdv": (tdv_tensors, "mb.1.conv_up.1.weight"),
    "drunet": (drunet_tensors, "m_up2.1.res.2.weight"),
}


@pytest.mark.parametrize("name", CASES)
def test_tensors_that_are_missing_too_many_or_of_a_wrong_shape(name):
    make, one = CASES[name]
    convert, tensors = getattr(pytorch, name), make()
    with pytest.raises(ValueError, match=r"no other tensors.*also \['step'\]"):
        convert({**tensors, "step": np.zeros(())})
    with pytest.raises(ValueError, match=rf"'{one}' of shape \(.*Received \(7, 7, 7"):
        convert({**tensors, one: np.zeros((7,) * 5)})
    with pytest.raises(ValueError, match=f"finite numbers in '{one}'"):
        convert({**tensors, one: np.full_like(tensors[one], np.nan)})
    del tensors["m_tail.weight" if name == "drunet" else one]
    with pytest.raises(ValueError, match="a tensor|an odd number of knots"):
        convert(tensors)


def test_what_is_no_state_dictionary():
    for convert in (pytorch.crr, pytorch.wcrr, pytorch.tdv, pytorch.drunet):
        with pytest.raises(ValueError, match="expected a mapping from names to arrays"):
            convert([1, 2])
    colour = crr_tensors() | {FREE.format(0): np.ones((2, 3, 3, 3))}
    with pytest.raises(ValueError, match=r"of shape \(any, 1, any, any\)"):
        pytorch.crr(colour)
