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
    solvers = list(dict.fromkeys(name for group in groups for name in group["solvers"]))
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
    size = (4.6 * len(columns), 3.4 * len(rows))
    figure, panels = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    for part in results["profiles"]:
        row = rows.index((part["kind"], part["target"]))
        axes = panels[row, columns.index(part["cost"])]
        most = 1.1 * max((f for values in part["factors"].values() for f in values), default=1.0)
        for index, name in enumerate(names):
            if name in part["factors"]:
                style = {"color": f"C{index % 10}", "ls": "-"}
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
