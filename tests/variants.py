"""Which combinations of parameters `make test` runs; the others are marked slow."""

import pytest


def marked(values, often):
    """Parameters for `pytest.mark.parametrize`: the values that are not in `often` are slow.

    A tuple is a combination, of a parameter for each of its parts.
    """
    assert all(value in values for value in often), "what is run often must be there"
    return [_parameter(value, value in often) for value in values]


def covering(combinations):
    """Parameters of which few run often, but each value of each place is among them.

    Values are told apart by their `repr`. What is taken depends on the combinations alone.
    """
    combinations = list(combinations)
    parts = [
        {(place, repr(value)) for place, value in enumerate(combination)}
        for combination in combinations
    ]
    missing, often = set().union(*parts), set()
    while missing:
        best = max(range(len(parts)), key=lambda number: len(parts[number] & missing))
        often.add(best)
        missing -= parts[best]
    return [
        _parameter(combination, number in often) for number, combination in enumerate(combinations)
    ]


def _parameter(value, often):
    values = value if type(value) is tuple else (value,)  # a named tuple is one value
    return pytest.param(*values, marks=() if often else pytest.mark.slow)
