"""Marks of combinations: nothing is lost, and each value runs often."""

from itertools import product

import pytest

from tests.variants import covering, marked


def _split(parameters):
    """The values of what runs often, and of what is slow."""
    often, slow = [], []
    for parameter in parameters:
        (slow if parameter.marks else often).append(parameter.values)
    return often, slow


def test_each_value_of_each_place_runs_often():
    axes = ("abcde", [1, 2, None], [[0], [1, 2]])
    parameters = covering(product(*axes))
    assert [p.values for p in parameters] == list(product(*axes))
    often, slow = _split(parameters)
    assert len(often) == 5, "as few as there are values of the longest axis"
    assert len(slow) == 5 * 3 * 2 - 5
    for place, axis in enumerate(axes):
        assert all(any(values[place] == value for values in often) for value in axis)


def test_of_combinations_that_are_not_all():
    often, _ = _split(covering([("a", 1), ("a", 2), ("b", 1), ("c", 3)]))
    assert {letter for letter, _ in often} == {"a", "b", "c"}
    assert {number for _, number in often} == {1, 2, 3}


def test_what_is_not_run_often_is_slow():
    assert _split(marked(["x", "y"], ["y"])) == ([("y",)], [("x",)])
    pairs = [("x", 1), ("y", 2)]
    assert _split(marked(pairs, [("x", 1)])) == ([("x", 1)], [("y", 2)])
    with pytest.raises(AssertionError, match="must be there"):
        marked(["x"], ["z"])
