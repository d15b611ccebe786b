"""Names, configurations and objects, and what is said about wrong ones."""

import keras
import numpy as np
import pytest

from deq_keras import adjoints, checks, linear_solvers, solvers

GETS = {
    "solver": (solvers.get, solvers.Solver, ("anderson", "nesterov", "picard")),
    "linear solver": (
        linear_solvers.get,
        linear_solvers.LinearSolver,
        ("conjugate_gradient", "gmres", "neumann"),
    ),
    "adjoint": (adjoints.get, adjoints.Adjoint, ("implicit", "jacobian_free", "unrolled")),
}


@pytest.mark.parametrize("kind", GETS)
def test_names_objects_and_configurations(kind):
    get, base, names = GETS[kind]
    for name in names:
        thing = get(name)
        assert isinstance(thing, base)
        assert get(thing) is thing
        again = get(keras.saving.serialize_keras_object(thing))
        assert type(again) is type(thing)
        assert again.get_config() == thing.get_config()


@pytest.mark.parametrize("kind", GETS)
def test_a_misspelt_name_has_a_near_match(kind):
    get, _, names = GETS[kind]
    for name in names:
        message = f"Unknown {kind}: '{name[:-1]}'. Did you mean '{name}'"
        with pytest.raises(ValueError, match=message):
            get(name[:-1])


@pytest.mark.parametrize("kind", GETS)
@pytest.mark.parametrize("wrong", [3, None, object()])
def test_a_wrong_type(kind, wrong):
    with pytest.raises(TypeError, match="an instance of"):
        GETS[kind][0](wrong)


def test_a_name_like_none_of_them_lists_them_all():
    error = checks.unknown_name_error("colour", "xyz", {"red": 1, "blue": 2})
    assert str(error) == "Unknown colour: 'xyz'. Expected one of ['blue', 'red']."


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2.0), "3"])
def test_positive_returns_a_float(value):
    number = checks.positive("x", value)
    assert isinstance(number, float)
    assert number == float(value)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), -float("inf")])
def test_positive_refuses(value):
    with pytest.raises(ValueError, match="Expected `x` to be a finite number > 0"):
        checks.positive("x", value)


def test_limits_of_positive():
    assert checks.positive("x", 0, zero=True) == 0.0
    assert checks.positive("x", 1.0, upper=1.0) == 1.0
    with pytest.raises(ValueError, match=r">= 0 and <= 1\.0"):
        checks.positive("x", 1.5, zero=True, upper=1.0)


@pytest.mark.parametrize("value", [1, np.int64(3), 2.0])
def test_positive_int_returns_an_int(value):
    number = checks.positive_int("n", value)
    assert type(number) is int
    assert number == value


@pytest.mark.parametrize("value", [0, -2, 1.5, True, False])
def test_positive_int_refuses(value):
    with pytest.raises(ValueError, match="Expected `n` to be an integer >= 1"):
        checks.positive_int("n", value)
