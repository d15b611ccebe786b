"""The suite of the published procedure: what it makes of whole and of shortened runs."""

from types import SimpleNamespace

import pytest

from benchmarks import paper_suite

RESULT = {"forward_steps": 40, "backward_steps": 20, "filters": None, "measurement": None}
RESULT |= {"forward_seconds": 4.0, "backward_seconds": 1.0}


class Procedure:
    """In place of the process that runs it: a run takes five seconds."""

    def build(self, key, module, problem, options):
        self.options = options

    def call(self, module, function, problem, options):
        return 5.0, RESULT

    def run(self, key, repeats=1):
        steps = self.options["iterations"]
        return [1.0], {
            "forward_steps": steps,
            "backward_steps": steps,
            "forward_seconds": 0.2 * steps,
            "backward_seconds": 0.1 * steps,
        }


@pytest.fixture
def contest():
    errors = {"gradient": 1e-3}
    procedure = Procedure()
    return SimpleNamespace(
        problem=None, judge=lambda result: errors, remote=lambda module: procedure
    )


def test_whole_runs(contest):
    found = paper_suite.collect([paper_suite.whole(contest, {"iterations": 100}, 2)])
    assert found["seconds"] == [5.0, 5.0]
    assert found["errors"] == {"gradient": 1e-3}
    assert (found["forward_steps"], found["backward_steps"]) == (40, 20)
    assert not found["extrapolated"]


def test_the_cost_of_an_iteration_times_their_number(contest):
    whole = paper_suite.collect([paper_suite.whole(contest, {"iterations": 100}, 1)])
    found = paper_suite.extrapolate(contest, whole, {"iterations": 100})
    assert found["seconds"] == [pytest.approx(0.2 * 40 + 0.1 * 20)]
    assert found["extrapolated"]
    assert found["errors"] == whole["errors"]


def test_ratios(contest):
    layout = paper_suite.collect([paper_suite.whole(contest, {"iterations": 100}, 1)])
    own = {"steps": {"forward_steps": 5, "backward_steps": 5}}
    found = paper_suite.compare(layout, [[0.5, 0.4, 0.6]], own)
    assert found["algorithm"] == pytest.approx(6.0)
    assert found["procedure_iterations"] == 60
    assert found["ratio"]["median"] == pytest.approx(10.0)
