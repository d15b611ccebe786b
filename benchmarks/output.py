"""The JSON file, the tables on the terminal and the plots of the benchmark."""

import json
import math

from rich.markup import escape
from rich.table import Table

from benchmarks import distributed_output, measure, solvers_output


def write(path, record):
    """Write a record as JSON; what is not finite becomes null."""
    path.write_text(json.dumps(_finite(record), indent=1, default=str) + "\n", "utf-8")


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def tables(record, console):
    """Print the numbers of a suite."""
    show = {"peers": _peers, "paper": _paper, "scaling": _scaling}
    show.update(distributed=distributed_output.tables, solvers=solvers_output.tables)
    show["priors"] = _priors
    show[record["suite"]](record["results"], console)


def _peers(results, console):
    _load(results, console)
    for target in results["targets"]:
        title = f"Training step to a gradient error of {target['target']:g}"
        _race(target, title, {"error of A": "filters", "error of y": "measurement"}, console)


def _priors(results, console):
    for preset, found in results.items():
        _load(found, console)
        count, *size, _ = found["shape"]
        for target in found["targets"]:
            title = f"{preset}, {count} images of {size[0]} x {size[1]}: to {target['target']:g}"
            _race(target, title, {"norm of the gradient": "gradient"}, console)


def _load(results, console):
    if said := measure.load_words(results["load"]):
        console.print(
            f"{said}, and times are too long, most of all those of PyTorch, whose threads spin.",
            highlight=False,
        )


def _race(target, title, errors, console):
    """Print everyone's best setting; `errors` are from headings to names of errors."""
    own = [e for e in target["contestants"] if "ratios" in e]
    ratios = [f"/ {entry['contestant']}" for entry in own]
    columns = ("contestant", "settings", "seconds (quartiles)", *errors, *ratios, "peak memory")
    table = Table(*columns, title=title, title_justify="left")
    for entry in target["contestants"]:
        if "median" not in entry:
            best = entry.get("best_error")
            note = "-" if best is None else f"not reached; its best error is {best:.1e}"
            table.add_row(entry["contestant"], note, *["-"] * (len(columns) - 2))
            continue
        table.add_row(
            entry["contestant"] + ("" if entry["met"] else " (missed)"),
            entry["family"],
            _spread(entry),
            *[f"{entry['errors'][name]:.1e}" for name in errors.values()],
            *[
                f"{e['ratios'][entry['contestant']]['median']:.2f}"
                if entry["contestant"] in e["ratios"]
                else "-"
                for e in own
            ],
            _mebibytes(entry.get("peak_bytes")),
        )
    console.print(table)
    if target["fastest_peer"]:
        for entry in own:
            ratio = entry["ratios"][target["fastest_peer"]]["median"]
            console.print(
                f"The fastest peer, {target['fastest_peer']}, takes {ratio:.2f} times as long "
                f"as {entry['contestant']}.",
                highlight=False,
            )


def _paper(results, console):
    columns = ("", "seconds", "iterations", "s / iteration", "error of A", "error of y")
    columns += ("times ours", "= algorithm", "x implementation")
    for task, found in results.items():
        shape = " x ".join(str(side) for side in found["problem"]["shape"][:3])
        table = Table(*columns, title=f"{task}, {shape}", title_justify="left")
        for layout, row in found["procedure"].items():
            compared = found["comparison"][layout]
            table.add_row(
                f"procedure, {layout}" + (" (extrapolated)" if row["extrapolated"] else ""),
                _spread(row),
                f"{row['forward_steps']} + {row['backward_steps']}",
                f"{compared['seconds_per_iteration']:.4f}",
                f"{row['errors']['filters']:.1e}",
                f"{row['errors']['measurement']:.1e}",
                f"{compared['ratio']['median']:.1f}",
                f"{compared['algorithm']:.1f}",
                f"{compared['implementation']:.1f}",
            )
        own, compared = found["ours"], found["comparison"]["channels_last"]
        defaults = found["ours_defaults"]
        for label, row in (("ours", own), ("ours, nothing configured", defaults)):
            steps = row["steps"]
            total = steps["forward_steps"] + steps["backward_steps"]
            seconds = row.get("median", row["seconds"])
            table.add_row(
                f"{label}: {row['family']}",
                _spread(row) if "median" in row else f"{row['seconds']:.3f}",
                f"{steps['forward_steps']:.0f} + {steps['backward_steps']:.0f}",
                f"{seconds / total:.4f}",
                f"{row['errors']['filters']:.1e}",
                f"{row['errors']['measurement']:.1e}",
                *["-"] * 3,
            )
        console.print(table)
        if not found["equal_error"]:
            console.print("Not at equal error: no setting of ours reached the procedure's.")


def _scaling(results, console):
    for name in ("iterations", "size", "batch", "tolerance"):
        columns = (name, "seconds", "peak memory", "forward steps", "backward steps")
        table = Table(*columns, title=f"Against {name}", title_justify="left")
        for row in results[name]:
            if "failed" in row:
                table.add_row(f"{row[name]:g}", row["failed"], "-", "-", "-")
                continue
            steps = [f"{row.get(side, float('nan')):.0f}" for side in _STEPS]
            table.add_row(f"{row[name]:g}", _spread(row), _mebibytes(row["peak_bytes"]), *steps)
        console.print(table)
    growth = results["memory_growth_with_iterations"]
    if growth is not None:
        console.print(f"Peak memory grows by {growth:.1%} over the iterations.", highlight=False)
    table = Table("solver", "adjoint", "seconds", "gradient error", title="Combinations")
    for row in results["combinations"]:
        adjoint = row["linear"] or row["adjoint"]
        if "failed" in row:
            table.add_row(row["solver"], adjoint, escape(row["failed"][:90]), "-")
        else:
            error = row["errors"]["gradient"]
            table.add_row(row["solver"], adjoint, f"{row['seconds']:.3f}", f"{error:.1e}")
    console.print(table)
    table = Table("solver", "times faster with compaction", "mean steps", title="Compaction")
    for row in results["compaction"]:
        if "failed" in row:
            table.add_row(row["solver"], escape(row["failed"][:90]), "-")
        else:
            ratio, steps = row["ratio"]["median"], row["mean_forward_steps"]
            table.add_row(row["solver"], f"{ratio:.2f}", f"{steps:.0f}")
    console.print(table)


_STEPS = ("forward_steps", "backward_steps")


def _spread(row):
    if row["low"] == row["high"]:
        return f"{row['median']:.3f}"
    return f"{row['median']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _mebibytes(value):
    return "-" if value is None else f"{value / 2**20:.0f} MiB"


def plot(path, record):
    """Draw a suite into a PNG file; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    draw = {"peers": _draw_peers, "paper": _draw_paper, "scaling": _draw_scaling}
    draw.update(distributed=distributed_output.draw, solvers=solvers_output.draw)
    draw["priors"] = _draw_priors
    figure = draw[record["suite"]](record["results"], plt)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def _draw_peers(results, plt):
    figure, axes = plt.subplots(figsize=(8, 5))
    _draw_race(results, axes)
    axes.set_xlabel("true relative error of the gradient")
    axes.set_ylabel("seconds of a training step")
    return figure


def _draw_priors(results, plt):
    size = (6 * len(results), 4.5)
    figure, panels = plt.subplots(1, len(results), figsize=size, squeeze=False)
    for axes, (preset, found) in zip(panels[0], results.items(), strict=True):
        _draw_race(found, axes)
        axes.set(title=preset, ylabel="seconds of a reconstruction")
        axes.set_xlabel("largest norm of the energy's gradient, relative")
    figure.tight_layout()
    return figure


def _draw_race(results, axes):
    """Every run of the sweep: time against true error; the finalists with quartiles."""
    names = list(dict.fromkeys(row["contestant"] for row in results["sweep"]))
    for index, name in enumerate(names):
        rows = [r for r in results["sweep"] if r["contestant"] == name and "failed" not in r]
        rows = [r for r in rows if math.isfinite(r["error"])]
        points = ([r["error"] for r in rows], [r["seconds"] for r in rows])
        axes.scatter(*points, s=14, alpha=0.5, color=f"C{index}", label=name)
        for target in results["targets"]:
            for entry in target["contestants"]:
                if entry["contestant"] == name and "median" in entry:
                    spread = [
                        [entry["median"] - entry["low"]],
                        [entry["high"] - entry["median"]],
                    ]
                    place = (entry["errors"]["gradient"], entry["median"])
                    axes.errorbar(*place, yerr=spread, fmt="D", color=f"C{index}", ms=8)
    for target in results["targets"]:
        axes.axvline(target["target"], color="grey", lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log")
    axes.legend(fontsize=8)


def _draw_paper(results, plt):
    figure, panels = plt.subplots(1, len(results), figsize=(5 * len(results), 4), squeeze=False)
    for axes, (task, found) in zip(panels[0], results.items(), strict=True):
        bars = {}
        for name, row in found["procedure"].items():
            note = "\n(extrapolated)" if row["extrapolated"] else ""
            bars[f"procedure,\n{name}{note}"] = row["median"]
        bars["ours"] = found["ours"]["median"]
        drawn = axes.bar(list(bars), list(bars.values()), color=["C1", "C3", "C0"][: len(bars)])
        axes.bar_label(drawn, fmt="%.2f s")
        axes.set(yscale="log", title=task, ylabel="seconds of a training step")
        axes.margins(y=0.1)  # room for the labels of the bars
    figure.tight_layout()
    return figure


def _draw_scaling(results, plt):
    names = ("iterations", "size", "batch", "tolerance")
    figure, panels = plt.subplots(2, len(names), figsize=(14, 6))
    for column, name in enumerate(names):
        rows = [row for row in results[name] if "failed" not in row]
        x = [row[name] for row in rows]
        panels[0, column].plot(x, [row["median"] for row in rows], "o-")
        panels[1, column].plot(x, [row["peak_bytes"] / 2**20 for row in rows], "o-")
        for axes in panels[:, column]:
            axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
            axes.set_xlabel(name)
        if name == "tolerance":
            panels[0, column].set_xscale("log")
            panels[1, column].set_xscale("log")
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory, MiB")
    figure.tight_layout()
    return figure
