"""Initial filters: the documented ones, exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras.priors import FieldsOfExperts, initializers

OURS = ("first_order", "second_order", "dct", "random")


def _filters(name, shape):
    return np.asarray(initializers.get(name)(shape, "float64"))


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (4, 5), (7, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_first_order_filters_are_forward_differences(size, channels):
    filters = _filters("first_order", (*size, channels, 2 * channels))
    u = np.random.default_rng(0).normal(size=(1, 10, 11, channels))
    # The filter's own position in its window does not matter: any patch in the interior does.
    windows = np.lib.stride_tricks.sliding_window_view(u, size, (1, 2))
    response = np.einsum("byxcij,ijcf->byxf", windows, filters)[0]
    i, j = (size[0] - 1) // 2, (size[1] - 1) // 2
    rows, columns = response.shape[:2]
    here = u[0, i : i + rows, j : j + columns]
    right = u[0, i : i + rows, j + 1 : j + 1 + columns] - here
    down = u[0, i + 1 : i + 1 + rows, j : j + columns] - here
    for c in range(channels):
        np.testing.assert_allclose(response[..., 2 * c], right[..., c], atol=1e-14)
        np.testing.assert_allclose(response[..., 2 * c + 1], down[..., c], atol=1e-14)


def test_first_order_numbers():
    filters = _filters("first_order", (3, 3, 1, 2))[:, :, 0]
    np.testing.assert_array_equal(filters[..., 0], [[0, 0, 0], [0, -1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(filters[..., 1], [[0, 0, 0], [0, -1, 0], [0, 1, 0]])


def test_second_order_numbers():
    filters = _filters("second_order", (3, 5, 1, 2))[:, :, 0]
    none = [0, 0, 0, 0, 0]
    np.testing.assert_array_equal(filters[..., 0], [none, [0, 1, -2, 1, 0], none])
    centre = [0, 0, 1, 0, 0]
    np.testing.assert_array_equal(filters[..., 1], [centre, [0, 0, -2, 0, 0], centre])
    colour = _filters("second_order", (3, 3, 3, 6))
    for c in range(3):
        others = [k for k in range(6) if k // 2 != c]
        np.testing.assert_array_equal(colour[:, :, c, others], 0)
        np.testing.assert_array_equal(colour[1, :, c, 2 * c], [1, -2, 1])
        np.testing.assert_array_equal(colour[:, 1, c, 2 * c + 1], [1, -2, 1])


@pytest.mark.parametrize(("size", "channels"), [((7, 7), 1), ((3, 4), 1), ((3, 3), 3)])
def test_dct_filters_are_an_orthonormal_basis_of_the_filters_without_mean(size, channels):
    count = channels * (size[0] * size[1] - 1)
    filters = _filters(initializers.DCT(exponent=0), (*size, channels, count))
    matrix = filters.reshape(-1, count)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(count), atol=1e-13)
    np.testing.assert_allclose(filters.sum((0, 1)), 0, atol=1e-13)
    # Low frequencies come first: their differences are small.
    roughness = sum((np.diff(filters, axis=a) ** 2).sum((0, 1, 2)) for a in (0, 1))
    assert roughness[:channels].max() < 0.5 * roughness.mean()


def test_dct_filters_are_weighed_by_their_frequency():
    atoms = _filters(initializers.DCT(exponent=0), (3, 4, 2, 22))
    weighed = _filters("dct", (3, 4, 2, 22))
    norms = np.linalg.norm(weighed.reshape(-1, 22), axis=0)
    np.testing.assert_allclose(weighed, atoms * norms, atol=1e-14)
    # Frequencies (0, 1), (1, 0), (0, 2), (1, 1), ... in each of the two channels.
    np.testing.assert_allclose(norms[:8], [1, 1, 1, 1, 2, 2, 2**0.5, 2**0.5])


@pytest.mark.parametrize("name", ["first_order", "second_order", "dct"])
def test_no_filter_starts_at_zero_and_none_sees_the_mean(name):
    # An even potential has no derivative at a zero filter: it would never be trained.
    filters = _filters(name, (5, 5, 1, 24))
    assert np.sqrt((filters**2).sum((0, 1, 2))).min() > 0.05
    np.testing.assert_allclose(filters.sum((0, 1)), 0, atol=1e-13)
    different = np.unique(np.round(filters.reshape(-1, 24).T, 10), axis=0)
    assert len(different) == 24


def test_random_filters_have_zero_mean_and_depend_on_the_seed_alone():
    shape = (5, 4, 2, 6)
    a, b = (np.asarray(initializers.Random(seed)(shape, "float64")) for seed in (1, 2))
    np.testing.assert_allclose(a.sum((0, 1)), 0, atol=1e-13)
    np.testing.assert_array_equal(a, initializers.Random(1)(shape, "float64"))
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("name", OURS)
def test_the_dtype_is_the_one_asked_for(name):
    assert initializers.get(name)((3, 3, 1, 2), "float64").dtype == tf.float64
    assert initializers.get(name)((3, 3, 1, 2)).dtype == tf.float32


@pytest.mark.parametrize("name", OURS)
def test_initializers_survive_their_configuration(name):
    initializer = initializers.get(name)
    config = keras.initializers.serialize(initializer)
    again = initializers.get(config)
    assert type(again) is type(initializer)
    np.testing.assert_array_equal(again((3, 4, 1, 5)), initializer((3, 4, 1, 5)))


def test_get_takes_what_keras_takes():
    assert isinstance(initializers.get("orthogonal"), keras.initializers.Orthogonal)
    mine = keras.initializers.RandomNormal(seed=3)
    assert initializers.get(mine) is mine
    prior = FieldsOfExperts(4, 3, filters_initializer=mine)
    assert prior.filters_initializer is mine


@pytest.mark.parametrize("name", ["first_ordr", None])
def test_an_unknown_initializer_is_a_value_error(name):
    match = "Did you mean 'first_order'" if name else "Unknown initializer: None"
    with pytest.raises(ValueError, match=match):
        initializers.get(name)


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [("first_order", (1, 3), "2 x 2"), ("dct", (3, 1), "2 x 2"), ("second_order", (2, 3), "3 x 3")],
)
def test_filters_too_small_for_a_difference(name, size, least):
    with pytest.raises(ValueError, match=least):
        initializers.get(name)((*size, 1, 2))
