"""The norms of convolutions: exact ones are exact, bounds are never violated, and are tight."""

import functools
from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import convolution, testing
from deq_keras.convolution import (
    circular_norm,
    composition_norm_bound,
    norm_bound,
    power_iteration_norm,
    reflected_bounds,
)
from deq_keras.priors import initializers
from tests.variants import covering

PADDINGS = convolution.PADDINGS
MODES = {"zero": "constant", "circular": "wrap", "reflect": "reflect"}


def normal(seed, shape, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def taps(n, k, padding):
    """For each filter pixel of one dimension, the matrix of what it reads: `(k, outputs, n)`."""
    top = (k - 1) // 2
    rows = np.eye(n)
    if padding != "valid":
        rows = np.pad(rows, ((top, k - 1 - top), (0, 0)), MODES[padding])
    return np.stack([rows[a : len(rows) - k + 1 + a] for a in range(k)])


def matrices(filters, size, padding):
    """The matrices of `correlate` for filters `(..., kh, kw, c, f)`, from the definition."""
    tall, wide = (taps(n, k, padding) for n, k in zip(size, filters.shape[-4:-2], strict=True))
    m = np.einsum("iyx,jzw,...ijcf->...yzfxwc", tall, wide, filters, optimize=True)
    *batch, a, b, c, d, e, f = m.shape
    return m.reshape(*batch, a * b * c, d * e * f)


def norm2(matrix):
    """The largest singular value; of a matrix with few columns this is faster than its SVD."""
    return float(np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix)[-1]))


def random_filters(rng, count, shape):
    """Of several kinds: normal, of mean zero, positive, sparse, and symmetric or antisymmetric."""
    filters = rng.standard_normal((count, *shape))
    filters[1::6] -= filters[1::6].mean((1, 2), keepdims=True)
    filters[2::6] = abs(filters[2::6])
    filters[3::6] **= 5
    filters[4::6] += filters[4::6, ::-1]
    filters[5::6] -= filters[5::6, :, ::-1]
    return filters


def smallest(kernel):
    return [1 if k == 1 else 2 * max(k - 1, 2) for k in kernel]


CHANNELS = [(1, 1), (1, 5), (2, 1), (2, 3)]
KERNELS = [(1, 2), (2, 1), (1, 5), (2, 2), (3, 3), (2, 3), (4, 3), (3, 4), (5, 1), (4, 2)]


@pytest.mark.parametrize(
    ("kernel", "channels"),
    # Two numbers of channels for each size.
    covering((kernel, CHANNELS[(i + j) % 4]) for i, kernel in enumerate(KERNELS) for j in (0, 1)),
)
def test_reflect_bound_is_never_violated(kernel, channels):
    """On the smallest sizes it holds for, and on larger ones: over 2000 filters in all."""
    rng = np.random.default_rng(0)
    # One graph for all sizes: see test_size_decides_between_the_bounds_for_reflect.
    traced = tf.function(lambda f, size: norm_bound(f, "reflect", size), autograph=False)
    for more in ((0, 0), (1, 0), (0, 2)):
        size = tuple(n + m for n, m in zip(smallest(kernel), more, strict=True))
        bound = functools.partial(traced, size=tf.constant(size))
        filters = random_filters(rng, 36, (*kernel, *channels))
        for one, matrix in zip(filters, matrices(filters, size, "reflect"), strict=True):
            assert norm2(matrix) <= float(bound(tf.constant(one))) * (1 + 1e-10)


@pytest.mark.parametrize("kernel", [(5, 5), (6, 5)])
def test_reflect_bound_is_never_violated_by_larger_filters(kernel):
    rng = np.random.default_rng(1)
    size = smallest(kernel)
    bound = tf.function(lambda f: norm_bound(f, "reflect", size), autograph=False)
    filters = random_filters(rng, 30, (*kernel, 1, 2))
    for one, matrix in zip(filters, matrices(filters, size, "reflect"), strict=True):
        assert norm2(matrix) <= float(bound(tf.constant(one))) * (1 + 1e-10)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("more", [0, 1, 6])
def test_border_forms_are_the_difference_to_zero_padding(k, more):
    """The identity of the proof: mirrored = zeros on the infinite grid + two border terms."""
    reach = max(k - 1, 2)
    n = 2 * reach + more
    h = np.random.default_rng(0).standard_normal(k)
    mirrored = np.einsum("kyx,k->yx", taps(n, k, "reflect"), h)
    zeros = np.stack([np.convolve(row, h[::-1]) for row in np.eye(n)], 1)  # with all outputs
    forms = reflected_bounds._forms(k) @ np.outer(h, h).ravel()
    first, last = forms.reshape(2, reach, reach)
    expected = zeros.T @ zeros
    expected[:reach, :reach] += first
    expected[n - reach :, n - reach :] += last[::-1, ::-1]
    np.testing.assert_allclose(mirrored.T @ mirrored, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["dct", "first_order", "random"])
@pytest.mark.parametrize("k", [3, 5])
def test_reflect_bound_is_tight(kind, k):
    """Within 1.35 of the true norm, where doubling each mirrored pixel is up to twice too large."""
    if kind == "random":
        filters = normal(0, (k, k, 1, 24)).numpy()
    else:
        count = {"dct": k * k - 1, "first_order": 2}[kind]
        filters = np.asarray(initializers.get(kind)((k, k, 1, count), "float64"))
    true = norm2(matrices(filters, (3 * k, 3 * k), "reflect"))
    tight = float(norm_bound(tf.constant(filters), "reflect", (3 * k, 3 * k)))
    assert true <= tight <= 1.35 * true
    assert tight < float(norm_bound(tf.constant(filters), "reflect"))


@pytest.mark.parametrize("kernel", [(3, 4), (1, 3)])
def test_size_decides_between_the_bounds_for_reflect(kernel):
    filters = normal(0, (*kernel, 1, 8))
    any_size = float(norm_bound(filters, "reflect"))
    least = smallest(kernel)
    tight = float(norm_bound(filters, "reflect", least))
    assert tight < any_size
    traced = tf.function(
        lambda size: norm_bound(filters, "reflect", size),
        [tf.TensorSpec([2], tf.int32)],
        autograph=False,  # as in a Keras layer
    )
    for size, expected in (
        (least, tight),
        ((99, 99), tight),
        ((least[0], least[1] - 1), any_size),
        ((2, 2), any_size),
    ):
        assert float(norm_bound(filters, "reflect", size)) == pytest.approx(expected, rel=1e-14)
        assert float(norm_bound(filters, "reflect", tf.constant(size))) == pytest.approx(expected)
        assert float(traced(tf.constant(size))) == pytest.approx(expected)
    for padding in ("zero", "valid", "circular"):
        assert float(norm_bound(filters, padding, least)) == float(norm_bound(filters, padding))


@pytest.mark.parametrize("shape", [(3, 4, 1, 6), (2, 3, 2, 3), (1, 5, 1, 4)])
def test_gradient_of_the_reflect_bound(shape):
    testing.gradient_test(lambda f: norm_bound(f, "reflect", (64, 64)), normal(3, shape))


def test_reflect_bound_of_zero_filters():
    filters = tf.zeros((3, 3, 2, 2))
    with tf.GradientTape() as tape:
        tape.watch(filters)
        bound = norm_bound(filters, "reflect", (8, 8))
    assert float(bound) == 0
    assert np.all(tape.gradient(bound, filters).numpy() == 0)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 2), (5, 7)])
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (4, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("size", [(3, 4), (5, 5), (8, 6)])
def test_circular_norm_is_exact(kernel, channels, size):
    """Also where the filter is larger than the image."""
    filters = normal(0, (*kernel, *channels))
    exact = norm2(matrices(filters.numpy(), size, "circular"))
    assert float(circular_norm(filters, size)) == pytest.approx(exact, rel=1e-12)
    assert exact <= float(norm_bound(filters, "circular")) * (1 + 1e-12)


def test_circular_norm_wraps_filters_of_many_periods():
    filters = tf.reshape(tf.range(1.0, 8.0, dtype=tf.float64), (7, 1, 1, 1))
    folded = np.array([1 + 3 + 5 + 7, 2 + 4 + 6])  # 7 pixels around an image of 2
    assert float(circular_norm(filters, (2, 1))) == pytest.approx(folded.sum(), rel=1e-14)


def test_all_norms_can_be_traced_without_autograph():
    filters = normal(0, (3, 2, 2, 3))

    def norms(filters):
        layers = [(filters, "circular"), (filters[..., :1], "circular")]
        return (
            circular_norm(filters, (4, 6)),
            composition_norm_bound(layers[:1], (4, 6)),
            composition_norm_bound([*layers[1:], (filters[:, :, :1], "valid")]),
            power_iteration_norm(filters, "zero", (4, 6), 2, tf.constant([1, 2])),
            norm_bound(filters, "reflect", (4, 6)),
        )

    traced = tf.function(norms, autograph=False)
    np.testing.assert_allclose(traced(filters), norms(filters), rtol=1e-12)


@pytest.mark.parametrize("channels", [(1, 3), (2, 2)])
def test_gradient_of_circular_norm(channels):
    testing.gradient_test(lambda f: circular_norm(f, (7, 6)), normal(1, (3, 4, *channels)))


def test_circular_norm_of_zero_and_of_half_precision():
    filters = tf.zeros((3, 3, 2, 2), tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(filters)
        norm = circular_norm(filters, (8, 8))
    assert norm.dtype == tf.bfloat16
    assert float(norm) == 0
    assert np.all(tape.gradient(norm, filters).numpy() == 0)


@pytest.mark.parametrize(
    ("third", "second", "first"),
    [
        *((None, *pair) for pair in product(PADDINGS, PADDINGS)),
        *covering(product(["valid", "circular"], PADDINGS, PADDINGS)),
    ],
)
def test_composition_bound_is_a_bound(first, second, third):
    paddings = [p for p in (first, second, third) if p]
    shapes = [(3, 2, 1, 2), (2, 3, 2, 2), (2, 2, 2, 1)]
    for seed in range(3):
        size, matrix, layers = (9, 8), 1, []
        for i, padding in enumerate(paddings):
            filters = normal(10 * seed + i, shapes[i])
            layers.append((filters, padding))
            following = matrices(filters.numpy(), size, padding)
            matrix = following if i == 0 else following @ matrix
            if padding == "valid":
                size = tuple(n - k + 1 for n, k in zip(size, shapes[i][:2], strict=True))
        true = norm2(matrix)
        product = np.prod([float(norm_bound(filters, padding)) for filters, padding in layers])
        for bound in (composition_norm_bound(layers), composition_norm_bound(layers, (9, 8))):
            assert true <= float(bound) * (1 + 1e-10)
            assert float(bound) <= product * (1 + 1e-10)
        if set(paddings) == {"circular"}:
            assert float(bound) == pytest.approx(true, rel=1e-12)


@pytest.mark.parametrize("padding", ["circular", "valid"])
def test_composition_that_is_one_convolution_is_bounded_tightly(padding):
    """A mean and then a difference: at most 2/3, where the product of the norms is 2."""
    mean = tf.fill((3, 1, 1, 1), tf.constant(1 / 3, tf.float64))
    difference = tf.reshape(tf.constant([-1.0, 1.0], tf.float64), (2, 1, 1, 1))
    layers = [(mean, padding), (difference, padding)]
    exact = max(abs((np.exp(3j * w) - 1) / 3) for w in np.linspace(0, np.pi, 1001))
    assert exact == pytest.approx(2 / 3, rel=1e-5)
    assert exact <= float(composition_norm_bound(layers)) <= 1.03 * exact
    product = composition_norm_bound([(mean, "zero"), (difference, "zero")])
    assert float(product) == pytest.approx(2, rel=0.03)


def test_joint_spectrum_is_no_bound_for_zero_padding():
    """A sum over all pixels and then a difference: constant but for the border, where it jumps.

    On the infinite grid the two cancel to `u(y + 9) - u(y - 8)`, of norm 2. With zero padding the
    sum of nine ones is nine everywhere, and the last difference is with the zero beyond.
    """
    box = tf.ones((17, 1, 1, 1), tf.float64)
    difference = tf.reshape(tf.constant([-1.0, 1.0], tf.float64), (2, 1, 1, 1))
    joint = float(composition_norm_bound([(box, "circular"), (difference, "circular")]))
    assert joint == pytest.approx(2, rel=0.03)
    ones = tf.ones((1, 9, 1, 1), tf.float64)
    image = convolution.correlate(convolution.correlate(ones, box, "zero"), difference, "zero")
    ratio = float(tf.norm(image) / tf.norm(ones))
    assert ratio == pytest.approx(3, rel=1e-14)
    assert joint < ratio
    assert ratio <= float(composition_norm_bound([(box, "zero"), (difference, "zero")]))


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradient_of_the_composition_bound(padding):
    testing.gradient_test(
        lambda a, b: composition_norm_bound([(a, padding), (b, "circular")], (8, 8)),
        normal(0, (3, 2, 1, 2)),
        normal(1, (2, 2, 2, 1)),
    )


@pytest.mark.parametrize(("channels", "padding"), covering(product([(1, 3), (2, 2)], PADDINGS)))
def test_power_iteration_approaches_the_norm_from_below(padding, channels):
    filters, size = tf.abs(normal(4, (3, 4, *channels))), (7, 6)  # positive: a large gap
    true = norm2(matrices(filters.numpy(), size, padding))
    few, many = (float(power_iteration_norm(filters, padding, size, n)) for n in (1, 150))
    assert few < many <= true * (1 + 1e-12)
    assert many == pytest.approx(true, rel=1e-6)
    assert true <= float(norm_bound(filters, padding, size)) * (1 + 1e-12)


def test_gradient_of_power_iteration_is_that_of_the_norm():
    filters, direction = tf.abs(normal(5, (3, 3, 1, 2))), normal(6, (3, 3, 1, 2)).numpy()
    with tf.GradientTape() as tape:
        tape.watch(filters)
        norm = power_iteration_norm(filters, "zero", (6, 7), 50)
    slope = float(tf.reduce_sum(tape.gradient(norm, filters) * direction))
    ahead, behind = (
        norm2(matrices(filters.numpy() + t * direction, (6, 7), "zero")) for t in (1e-5, -1e-5)
    )
    assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_power_iteration_of_zero_filters():
    assert float(power_iteration_norm(tf.zeros((3, 3, 1, 2)), "reflect", (8, 8))) == 0


def test_errors():
    filters = tf.ones((3, 3, 1, 2))
    for size in ((8,), (8, 0), (8.5, 8)):
        with pytest.raises(ValueError, match="two positive integers"):
            circular_norm(filters, size)
    with pytest.raises(ValueError, match="at least one pair"):
        composition_norm_bound([])
    with pytest.raises(ValueError, match="channels"):
        composition_norm_bound([(filters, "zero"), (filters, "zero")])
    with pytest.raises(ValueError, match="Did you mean 'circular'"):
        composition_norm_bound([(filters, "circulr")])
    with pytest.raises(ValueError, match="steps"):
        power_iteration_norm(filters, "zero", (8, 8), steps=0)
    with pytest.raises(ValueError, match="'valid'"):
        power_iteration_norm(filters, "valid", (2, 8))
    with pytest.raises(ValueError, match="large enough"):
        power_iteration_norm(tf.ones((9, 9, 1, 1)), "reflect", (3, 3))
