"""The tables and the plot of the suite `solvers`."""

import numpy as np
from rich.table import Table

from benchmarks import measure

_COSTS = {
    "seconds": "seconds",
    "processor": "processor seconds",
    "work": "evaluations + products",
}


def tables(results, console):
    """Print where which solver wins, and who failed."""
    if said := measure.load_words(results["load"]):
        console.print(
            f"{said}: times say less than those that cores worked (in the file and the plot), and "
            "these less than evaluations and products.",
            highlight=False,
        )
    groups = results["groups"]
    peers = peers_of(results)
    solvers = dict.fromkeys(name for group in groups for name in group["solvers"])
    solvers = [name for name in solvers if name not in peers]
    for target in dict.fromkeys(group["target"] for group in groups):
        title = f"Times the best, in seconds | evaluations and products; to {target:g}"
        table = Table("prior", "sharpness", *solvers, title=title, title_justify="left")
        for group in groups:
            if group["target"] != target:
                continue
            sharpness = "-" if group["sharpness"] is None else f"{group['sharpness']:g}"
            cells = [_factors(group["solvers"].get(name), group["problems"]) for name in solvers]
            table.add_row(group["prior"], sharpness, *cells)
        console.print(table)
    console.print(
        "Geometric means over the tasks; in brackets, how many of them a solver solved if not all.",
        highlight=False,
    )
    for name, words in results["peers_missing"].items():
        console.print(f"{name}: not run, {words}.", highlight=False)
    if peers:
        _peers(results, peers, console)


def peers_of(results):
    """The labels of the solvers of other libraries."""
    runs = [run for row in results["problems"] for run in row["runs"]]
    return list(dict.fromkeys(run["solver"] for run in runs if run["peer"]))


def _peers(results, peers, console):
    """Print how each solver of other libraries did on each problem."""
    title = "Other libraries: seconds over those of auto, in turn | evaluations and products"
    table = Table("problem", "to", "auto", *peers, title=title, title_justify="left")
    for place, target, own, runs, ratios in _duels(results):
        own = f"{own['seconds']:.3f} s | {own['work']:.0f}" if own["met"] else own["why"]
        cells = [_duel(runs.get(name), ratios.get(name)) for name in peers]
        table.add_row(place, f"{target:g}", own, *cells)
    console.print(table)
    for line in beaten(results):
        console.print(line, highlight=False)


def beaten(results):
    """Lines that say where a solver of another library takes fewer seconds than `auto`, or gets
    there where `auto` does not; one that says so if there is none."""
    lines = []
    for place, target, own, runs, ratios in _duels(results):
        place = f"{place}, to {target:g}"
        for name, ratio in ratios.items():
            if ratio["median"] < 1.0:
                lines.append(f"{place}: {name} takes {ratio['median']:.2f} times auto's seconds.")
        if not own["met"]:
            met = [name for name, run in runs.items() if run["peer"] and run["met"]]
            lines += [f"{place}: {name} gets there, auto does not." for name in met]
    return lines or ["No solver of another library took fewer seconds than auto on any problem."]


def _duels(results):
    """For each duel: problem, target, what `auto` did, the runs by solver, the ratios."""
    for row in results["problems"]:
        place = row["problem"] + ("" if row["sharpness"] is None else f", {row['sharpness']:g}")
        for duel in row["duels"]:
            runs = {r["solver"]: r for r in row["runs"] if r["target"] == duel["target"]}
            yield place, duel["target"], runs[row["auto"]], runs, duel["ratios"]


def _duel(run, ratio):
    if run is None:
        return "-"
    if not run["met"]:
        nearest = run.get("nearest")
        return run["why"] if nearest is None else f"{run['why']}, error {nearest:.1e}"
    return ("" if ratio is None else f"{ratio['median']:.1f} | ") + f"{run['work']:.0f}"


def _factors(entry, problems):
    if entry is None:
        return "-"
    text = f"{entry['seconds']:.1f} | {entry['work']:.1f}"
    return text if entry["solved"] == problems else f"{text} ({entry['solved']} of {problems})"


def draw(results, plt):
    """The performance profiles: a row for energies or maps and a target, a column for a cost."""
    rows = list(dict.fromkeys((part["kind"], part["target"]) for part in results["profiles"]))
    columns = list(_COSTS)
    names = list(dict.fromkeys(n for part in results["profiles"] for n in part["factors"]))
    peers = peers_of(results)
    size = (4.6 * len(columns), 3.4 * len(rows))
    figure, panels = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    for part in results["profiles"]:
        row = rows.index((part["kind"], part["target"]))
        axes = panels[row, columns.index(part["cost"])]
        most = 1.1 * max((f for values in part["factors"].values() for f in values), default=1.0)
        for index, name in enumerate(names):
            if name in part["factors"]:
                style = {"color": f"C{index % 10}", "ls": "--" if name in peers else "-"}
                if name == "auto":
                    style = {"color": "black", "ls": ":", "lw": 2.5}
                x, y = steps(part["factors"][name], part["problems"], max(most, 2.0))
                axes.step(x, y, where="post", label=name, **style)
        axes.set(xscale="log", ylim=(0, 1.03))
        axes.set_xlabel(f"factor over the best, {_COSTS[part['cost']]}")
        axes.set_title(f"{part['kind']} ({part['problems']}), error {part['target']:g}")
    for row in panels:
        row[0].set_ylabel("share of problems solved")
    handles = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.tight_layout()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 6, "fontsize": 9}
    figure.legend(handles.values(), handles.keys(), **place)
    return figure


def steps(factors, problems, most):
    """The corners of a profile: `(factors, shares)` from 1 to `most`."""
    factors = np.asarray(factors)
    x = np.concatenate([[1.0], factors, [most]])
    shares = np.arange(1, len(factors) + 1) / max(problems, 1)
    first = float(np.mean(factors <= 1.0) * len(factors) / max(problems, 1)) if len(factors) else 0
    last = shares[-1] if len(shares) else 0.0
    return x, np.concatenate([[first], shares, [last]])
