"""Structures of images as matrices of rows, and arithmetic that lets no NaN through."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.numerics import rows


def _structure():
    rng = np.random.default_rng(0)
    return {
        "a": tf.constant(rng.normal(size=(3, 4, 5, 2))),
        "b": [tf.constant(rng.normal(size=(3,))), tf.constant(rng.normal(size=(3, 1)))],
    }


@pytest.mark.parametrize("structure", [tf.ones((3, 4, 5, 1)), tf.ones((3,)), _structure()])
def test_there_and_back(structure):
    matrix, ravel, unravel = rows.to_rows(structure)
    sizes = [int(np.prod(t.shape[1:])) for t in tf.nest.flatten(structure)]
    assert matrix.shape == (3, sum(sizes))
    again = unravel(matrix)
    tf.nest.assert_same_structure(structure, again)
    for a, b in zip(tf.nest.flatten(structure), tf.nest.flatten(again), strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(ravel(again), matrix)


def test_row_i_holds_image_i():
    structure = _structure()
    matrix, ravel, _ = rows.to_rows(structure)
    for i in range(3):
        image = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], structure)
        np.testing.assert_array_equal(rows.to_rows(image)[0][0], matrix[i])
    norms = tf.sqrt(tf.add_n([rows.dot(r, r) for r in (matrix[:, :40], matrix[:, 40:])]))
    np.testing.assert_allclose(rows.norm(matrix), norms)
    assert ravel(structure).shape == matrix.shape


def test_unknown_sizes_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, 2))])
    def there_and_back(a, b):
        matrix, _, unravel = rows.to_rows([a, b])
        a_again, b_again = unravel(2 * matrix)
        assert a_again.shape.as_list() == [None, None, None, 1]
        return a_again, b_again

    for size in (3, 5):
        a, b = tf.random.stateless_normal((2, size, 4, 1), (0, 0)), tf.ones((2, 2))
        a_again, b_again = there_and_back(a, b)
        np.testing.assert_array_equal(a_again, 2 * a)
        np.testing.assert_array_equal(b_again, 2 * b)


def test_where_lets_no_nan_through():
    good, bad = tf.ones((2, 3)), tf.fill((2, 3), float("nan"))
    with tf.GradientTape() as tape:
        tape.watch(good)
        chosen = rows.where(tf.constant([True, True]), good, bad)
    np.testing.assert_array_equal(chosen, good)
    np.testing.assert_array_equal(tape.gradient(chosen, good), 1)
    mixed = rows.where(tf.constant([True, False]), good, 3 * good)
    np.testing.assert_array_equal(mixed, [[1, 1, 1], [3, 3, 3]])


def test_safe_divide():
    a, b = tf.constant([1.0, 0.0, 6.0]), tf.constant([0.0, 0.0, 3.0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((a, b))
        quotient = rows.safe_divide(a, b)
    np.testing.assert_array_equal(quotient, [0, 0, 2])
    np.testing.assert_allclose(tape.gradient(quotient, a), [0, 0, 1 / 3])
    np.testing.assert_allclose(tape.gradient(quotient, b), [0, 0, -2 / 3])


def test_ranks_only():
    loop = (tf.constant(1), {"z": tf.ones((2, 3))}, ())
    shapes = rows.ranks_only(loop)
    assert shapes[0].as_list() == []
    assert shapes[1]["z"].as_list() == [None, None]
    assert shapes[2] == ()
