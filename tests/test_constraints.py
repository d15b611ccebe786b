"""Constraints: their proximal maps solve the problems that define them."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deq_keras import constraints

CONSTRAINTS = {
    "non_negative": constraints.NonNegative(),
    "box": constraints.Box(-0.2, 0.6),
    "l1": constraints.L1(0.3),
}
U = np.random.default_rng(0).normal(size=(3, 4, 2, 1))
STEP = np.array([0.1, 1.0, 3.0])


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_the_proximal_map_is_the_minimiser(name):
    """`G(x) + |x - u|^2 / (2 step)`, entry by entry, by a search on an interval."""
    constraint = CONSTRAINTS[name]
    found = constraint.proximal(tf.constant(U), tf.constant(STEP)).numpy()
    lower, upper = {"non_negative": (0.0, 9.0), "box": (-0.2, 0.6), "l1": (-9.0, 9.0)}[name]
    weight = 0.3 if name == "l1" else 0.0
    for index in np.ndindex(U.shape):
        step = STEP[index[0]]
        best = scipy.optimize.minimize_scalar(
            lambda x, u=U[index], step=step: weight * abs(x) + (x - u) ** 2 / (2 * step),
            bounds=(lower, upper),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
        assert found[index] == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_proximal_maps_do_not_expand_and_keep_what_is_inside(name):
    constraint, rng = CONSTRAINTS[name], np.random.default_rng(1)
    for scale in (1e-3, 1.0, 30.0):
        other = U + scale * rng.normal(size=U.shape)
        a, b = (constraint.proximal(tf.constant(x), tf.constant(STEP)).numpy() for x in (U, other))
        squares = [((x - z) ** 2).sum((1, 2, 3)) for x, z in ((a, b), (U, other))]
        assert (squares[0] <= squares[1] * (1 + 1e-12)).all()
    if name != "l1":
        inside = constraint.proximal(tf.constant(U), tf.constant(STEP))
        again = constraint.proximal(inside, tf.constant(STEP))
        np.testing.assert_array_equal(inside, again)
        np.testing.assert_array_equal(constraint.value(inside), np.zeros(3))


def test_the_value_of_a_norm():
    expected = 0.3 * np.abs(U).sum((1, 2, 3))
    np.testing.assert_allclose(CONSTRAINTS["l1"].value(tf.constant(U)), expected, rtol=1e-13)


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_config_round_trip(name):
    again = constraints.get(keras.saving.serialize_keras_object(CONSTRAINTS[name]))
    assert repr(again) == repr(CONSTRAINTS[name])
    assert type(constraints.get(name)) is type(CONSTRAINTS[name])


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: constraints.get("nonnegative"), ValueError, "Did you mean 'non_negative'"),
        (lambda: constraints.get(1.0), TypeError, "Expected a constraint"),
        (lambda: constraints.Box(1.0, 0.0), ValueError, "lower"),
        (lambda: constraints.Box("a", 0.0), ValueError, "lower"),
        (lambda: constraints.L1(0.0), ValueError, "`weight`"),
        (
            lambda: constraints.Constraint().proximal(tf.zeros((1, 2)), tf.ones(1)),
            NotImplementedError,
            "`proximal",
        ),
    ],
)
def test_wrong_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()
