"""The exit code and the words of a run."""

import io

import pytest
from rich.console import Console

from experiments.restoration import summary
from experiments.restoration.errors import Refused, Unavailable
from experiments.restoration.jobs import Done
from experiments.restoration.restoring import Restored
from trainers.process import exits


def _done(name, converged=True, certified=True):
    return Done(name, "grey", Restored(None, 4, 7, 2e-6, converged, 3e-4, certified))


GOOD, SLOW = _done("good"), _done("slow", converged=False, certified=False)
BAD = Done("bad", error=Refused("No image."))
FULL = Done("full", error=OSError("no space"))
LOST = Done("lost", error=Unavailable("gone"))
BUG = Done("bug", error=KeyError("steps"))


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([GOOD], 0),
        ([GOOD, SLOW], summary.NOT_CONVERGED),
        ([GOOD, SLOW, BAD], exits.BAD_DATA),
        ([BUG], exits.BAD_DATA),
        ([BAD, FULL, GOOD], exits.IO_ERROR),
        ([BAD, FULL, LOST], exits.UNAVAILABLE),
    ],
)
def test_the_gravest_gives_the_code(results, code):
    assert summary.exit_code(results) == code


def test_counts_and_failures():
    results = [GOOD, SLOW, BAD, BUG]
    assert summary.counts(results) == "2 of 4 restored; 2 failed; 1 did not converge."
    assert list(summary.failures(results)) == [
        "Failed: bad: No image.",
        "Failed: bug: KeyError: 'steps'",
    ]


def test_table():
    output = io.StringIO()
    name = _done("with [red] brackets")
    Console(file=output, width=100).print(summary.table([name, SLOW, BAD]))
    first, second, third = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in output.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert first == ["with [red] brackets", "grey", "4", "7", "2.0e-06", "yes", "3.0e-04"]
    assert second[-2:] == ["no", "~3.0e-04"]
    assert third[:2] == ["bad", "failed"]
