"""Runs in groups: what differs between them, what is compared, and what it is called."""

import json
from typing import NamedTuple

from experiments.methods import METHODS
from experiments.report.plots import Line
from experiments.report.text import finite

# What tells the curves of one plot apart; runs that differ in these alone form a group.
CURVE = ("model", "fidelity", "start")
OUTER = ("task", "activation")  # the base setting is chosen for each of these
MODES = {"ours": (), "paper": (3, 1.4)}  # and the dashes of their lines
_OTHER = (1, 1)  # of a mode with another name
STARTS = {
    "random": "from scratch",
    "bilevel": "from the bilevel weights",
    "bilevel_further": "trained further",
    "denoising": "from the denoising weights",
}
_MARKERS = {"bilevel": "^", "bilevel_further": "s", "denoising": "v"}
_BARE = ("task", "model", "fidelity", "activation")  # their values say what they are
_SYMBOLS = {"tau": "τ", "gamma": "γ"}
_NO_SWEEP = ("seed",)  # a number that measures nothing


class Group(NamedTuple):
    """Runs that differ in their curves alone.

    Attributes:
        runs: the runs.
        base: whether its other settings are those that most runs of its task have.
        title: what it is, as plain text.
    """

    runs: list
    base: bool
    title: str


class Sweep(NamedTuple):
    """Runs that differ in one number, and in their curves.

    Attributes:
        key: the setting.
        runs: the runs.
        title: the other settings, as plain text.
    """

    key: str
    runs: list
    title: str


def settings(run):
    """The settings of a run, of which there may be none."""
    return run.get("settings") or {}


def name(run):
    """What a run is called, as plain text."""
    return str(run.get("id") or describe(settings(run)) or "a run")


def _number(value):
    return None if isinstance(value, bool | str) else finite(value)


def _frozen(value):
    """A value that can be compared: 1 is 1.0, and a list is one too."""
    number = _number(value)
    return f"{number:.9g}" if number is not None else json.dumps(value, default=str, sort_keys=True)


def _identity(run, without):
    return tuple(sorted((str(k), _frozen(v)) for k, v in settings(run).items() if k not in without))


def together(runs, without):
    """Lists of the runs whose settings agree but for the keys in `without`."""
    groups = {}
    for run in runs:
        groups.setdefault(_identity(run, without), []).append(run)
    return list(groups.values())


def varying(runs):
    """The settings that not all runs agree on, in the order of their appearance."""
    keys = dict.fromkeys(key for run in runs for key in settings(run))
    return [k for k in keys if len({_frozen(settings(run).get(k)) for run in runs}) > 1]


def words(value):
    """A setting's value as plain text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = _number(value)
    return f"{number:g}" if number is not None else str(value).replace("_", " ")


def setting(key):
    """What a setting is called."""
    return _SYMBOLS.get(key, str(key).replace("_", " "))


def heading(key):
    """What a setting is called at the head of a column."""
    return _SYMBOLS.get(key) or setting(key)[:1].upper() + setting(key)[1:]


def describe(values, keys=None):
    """Settings in a line: "Denoising, bilevel, noise 0.5, τ 0.1"."""
    parts = []
    for key in values if keys is None else keys:
        if values.get(key) is None:
            continue
        value = words(values[key])
        if key == "start":
            parts.append(STARTS.get(values[key], value))
        else:
            parts.append(value if key in _BARE else f"{setting(key)} {value}")
    line = ", ".join(parts)
    return line[:1].upper() + line[1:]


def common(runs):
    """The settings that all runs agree on, in a line."""
    differ = varying(runs)
    shared = settings(runs[0]) if runs else {}
    return describe(shared, [k for k in shared if k not in differ and k not in CURVE])


def _titles(runs):
    """The keys that a title names: the task, and what varies beyond the curves."""
    return ["task", *(k for k in varying(runs) if k not in (*CURVE, "task"))]


def grouped(runs):
    """The `Group`s of all runs, one of each task (and activation) the base."""
    keys = _titles(runs)
    lists = together(runs, CURVE)
    best = {}
    for number, members in enumerate(lists):
        own = settings(members[0])
        outer = tuple(_frozen(own.get(k)) for k in OUTER)
        near = [r for r in runs if tuple(_frozen(settings(r).get(k)) for k in OUTER) == outer]
        score = sum(_frozen(settings(r).get(k)) == _frozen(own.get(k)) for r in near for k in keys)
        if outer not in best or score > best[outer][0]:
            best[outer] = (score, number)
    bases = {number for _, number in best.values()}
    return [
        Group(members, number in bases, describe(settings(members[0]), keys) or "All runs")
        for number, members in enumerate(lists)
    ]


def sweeps(runs):
    """The `Sweep`s: a curve of one of them has at least two values, and all else agrees."""
    keys = _titles(runs)
    found = []
    for key in varying(runs):
        if key in (*CURVE, *OUTER, *_NO_SWEEP):
            continue
        numbered = [
            r
            for r in runs
            if _number(settings(r).get(key)) is not None and final_loss(r) is not None
        ]
        for members in together(numbered, (key, *CURVE)):
            curves = together(members, (key,))
            if any(len({_frozen(settings(r)[key]) for r in c}) > 1 for c in curves):
                others = [k for k in keys if k != key]
                found.append(Sweep(key, members, describe(settings(members[0]), others)))
    return found


def title(run, among, without=()):
    """A run among others, by its settings that vary, with the task and the model always said."""
    keys = dict.fromkeys(("task", "model", *varying(among)))
    return describe(settings(run), [k for k in keys if k not in without]) or name(run)


def pairs(runs):
    """Pairs of a run in the mode "paper" and the same in the mode "ours"."""
    found = []
    for members in together(runs, ("fidelity",)):
        modes = {settings(r).get("fidelity"): r for r in members}
        if set(MODES) <= set(modes):
            found.append((modes["paper"], modes["ours"]))
    return found


def method(run):
    """The key of the method whose colour a run has."""
    model = settings(run).get("model")
    return model if model in ("bilevel", "equilibrium") else "measurement"


def curve(run, among):
    """What a run's curve is called among others: "Bilevel, ours, from scratch"."""
    own = settings(run)
    model = own.get("model")
    title = METHODS[model].label if model in METHODS else words(model or "a run").capitalize()
    parts = [title, *([words(own["fidelity"])] if own.get("fidelity") else [])]
    starts = {_frozen(settings(r).get("start")) for r in among if settings(r).get("model") == model}
    start = own.get("start")
    if start is not None and len(starts) > 1:
        parts.append(STARTS.get(start, words(start)))
    return ", ".join(parts)


def line(run, x, y, at="end"):
    """The curve of a run: its colour is the method's, dashes the mode's, a marker the start's."""
    own, key = settings(run), method(run)
    mode, start = str(own.get("fidelity")), str(own.get("start"))
    marker = _MARKERS.get(start) or METHODS[key].marker or "o"
    return Line(x, y, key, MODES.get(mode, _OTHER), marker, at)


def epochs(run, key):
    """`(epochs, values)` of a measure of a run."""
    entries = [e for e in run.get("epochs") or [] if e]
    return [e.get("epoch") for e in entries], [e.get(key) for e in entries]


def last(run, key):
    """A measure after training, or at the last epoch that has it; None if it is nowhere."""
    values = [(run.get("final") or {}).get(key), *reversed(epochs(run, key)[1])]
    return next((v for v in map(finite, values) if v is not None), None)


def final_loss(run):
    """The test loss after training; None if the run failed or does not say."""
    return None if run.get("failed") else finite((run.get("final") or {}).get("test_loss"))


def seconds_of_epoch(run):
    """The least seconds of an epoch, or None; of several the first, which is traced, is left out.

    The least, for a machine that does other work as well makes some longer.
    """
    values = [v for v in map(finite, epochs(run, "seconds")[1]) if v is not None]
    return min(values[1:] or values, default=None)
