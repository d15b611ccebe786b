"""Small systems by elimination, against a dense solve."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.numerics.small_systems import solve_positive_definite


def _gram(size, batch=5, seed=0):
    """Gram matrices with a unit diagonal."""
    columns = np.random.default_rng(seed).normal(size=(batch, 2 * size, size))
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    return columns.transpose(0, 2, 1) @ columns


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_against_a_dense_solve(size):
    matrix = _gram(size)
    right = np.random.default_rng(1).normal(size=(5, size))
    found = solve_positive_definite(tf.constant(matrix), tf.constant(right), size)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right[..., None])[..., 0], rtol=1e-9)


def test_an_unknown_that_says_nothing_new_is_taken_out():
    """The second column is a copy of the first: one solution of the consistent system."""
    matrix = _gram(3)
    matrix[:, 1], matrix[:, :, 1] = matrix[:, 0], matrix[:, :, 0]
    matrix[:, 1, 1] = 1.0
    right = matrix @ np.array([1.0, 2.0, 3.0])
    found = solve_positive_definite(tf.constant(matrix), tf.constant(right), 3).numpy()
    np.testing.assert_array_equal(found[:, 1], 0.0)
    np.testing.assert_allclose(np.einsum("bij,bj->bi", matrix, found), right, atol=1e-12)


def test_batches_of_unknown_size():
    function = tf.function(
        lambda m, r: solve_positive_definite(m, r, 3),
        input_signature=[tf.TensorSpec((None, 3, 3)), tf.TensorSpec((None, 3))],
    )
    for count in (1, 4):
        found = function(tf.eye(3, batch_shape=[count]), tf.ones((count, 3)))
        np.testing.assert_allclose(found, 1.0)


def test_elementary_operations_only():
    """LiteRT and ONNX have no linear algebra."""
    function = tf.function(lambda m, r: solve_positive_definite(m, r, 3))
    graph = function.get_concrete_function(tf.TensorSpec((2, 3, 3)), tf.TensorSpec((2, 3))).graph
    used = {operation.type for operation in graph.get_operations()}
    assert not [name for name in used if name.startswith(("Matrix", "Cholesky", "Batch", "Self"))]
