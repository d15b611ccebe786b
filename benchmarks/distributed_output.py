"""The tables and the plot of the suite `distributed`."""

from rich.table import Table


def tables(results, console):
    """Print what was measured, then what is extrapolated."""
    problem, models = results["problem"], results["models"]
    what = (
        f"{problem['images']} patches of {problem['size']} x {problem['size']}, "
        f"{problem['filters']} filters of {problem['kernel_size']} x {problem['kernel_size']}"
    )
    columns = ("model", "one process, s", "two, s", "times faster", "losses differ by")
    table = Table(*columns, title=f"A step of training: {what}", title_justify="left")
    for name, row in models.items():
        table.add_row(
            name,
            _spread(row["one"]),
            _spread(row["two"]),
            _spread(row["ratio"], 2) + ("" if row["met"] else f" (below {results['wanted']})"),
            f"{row['loss_difference']:.1e}",
        )
    console.print(table)
    for name, row in models.items():
        if not row["equal_work"]:
            console.print(f"{name}: the losses differ, so this is not the same work.")
        if not row["free"]:
            used = row["processor_seconds"]
            console.print(
                f"{name}: the processes had {row['core_share']:.0%} of their cores. Other programs "
                "disturb these measurements (or the steps are too short for any): repeat them on a "
                "machine that is free. "
                f"By processor time alone two are {used['one'] / used['two']:.2f} times faster."
            )
    _steps(models, console)
    _forecast(results, what, console)


def _steps(models, console):
    columns = ("model", "half of one process's", "half the images, alone", "both at once")
    columns += ("the slower", "together", "waiting", "communication", "all-reduce alone", "bytes")
    table = Table(*columns, title="Where a step of two goes, in seconds", title_justify="left")
    for name, row in models.items():
        step, exchange = row["step"], row["exchange"]
        table.add_row(
            name,
            f"{step['whole'] / 2:.3f}",
            *[f"{step[k]:.3f}" for k in ("alone", "at_once", "slowest_at_once", "together")],
            f"{step['share_of_waiting']:.1%}",
            f"{step['share_of_exchange']:.1%}",
            f"{1e3 * exchange['all_reduce']:.2f} ms, {row['share_of_all_reduce']:.1%}",
            str(exchange["bytes"]),
        )
    console.print(table)


def _forecast(results, what, console):
    network = results["network"]
    wires = f"{network['name']}, {1e6 * network['latency']:.0f} us more a round"
    columns = ("model", "scaling", "workers", "images", "s / step", "compute", "waiting")
    columns += ("communication", "times faster", "efficiency")
    title = f"Extrapolated, not measured: {wires}"
    table = Table(*columns, title=title, title_justify="left")
    for name, model in results["models"].items():
        for kind in ("weak", "strong"):
            for row in model["forecast"][kind]:
                parts = [f"{row[key]:.3f}" for key in ("seconds", "compute", "waiting", "exchange")]
                table.add_row(
                    name,
                    kind,
                    str(row["workers"]),
                    str(row["images"]),
                    *parts,
                    f"{row['speedup']:.1f}",
                    f"{row['efficiency']:.0%}",
                )
    console.print(table)
    say = lambda line: console.print(line, highlight=False)  # noqa: E731
    for name, model in results["models"].items():
        found, check = model["forecast"], model["forecast"]["check"]
        loopback = found["loopback"]
        say(
            f"{name}: on loopback {1e6 * loopback['latency']:.0f} us a round, "
            f"{loopback['bandwidth'] / 1e9:.2f} GB/s. For two workers this model says "
            f"{check['predicted']:.3f} s; measured: {check['measured']:.3f} s."
        )
    say("Assumptions:")
    for line in results["assumptions"]:
        say(f"- {line}")


def _spread(row, digits=3):
    text = f"{row['median']:.{digits}f}"
    if row["low"] == row["high"]:
        return text
    return f"{text} ({row['low']:.{digits}f} to {row['high']:.{digits}f})"


def draw(results, plt):
    """Left the parts of a step of two, in place of half a step of one; right the forecast."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    top = 0.0
    for column, (name, model) in enumerate(results["models"].items()):
        step = model["step"]
        left.bar(2.5 * column, step["whole"] / 2, color="C7", label="half a step of one process")
        bottom = 0.0
        heights = {
            "computing": step["at_once"],
            "waiting for the slower": step["slowest_at_once"] - step["at_once"],
            "communication": step["together"] - step["slowest_at_once"],
        }
        for index, (label, height) in enumerate(heights.items()):
            height = max(0.0, height)
            left.bar(2.5 * column + 1, height, bottom=bottom, color=f"C{index}", label=label)
            bottom += height
        top = max(top, bottom, step["whole"] / 2)
        for kind, line in (("weak", "o-"), ("strong", "s--")):
            rows = model["forecast"][kind]
            right.plot(
                [row["workers"] for row in rows],
                [row["efficiency"] for row in rows],
                line,
                color=f"C{column}",
                label=f"{name}, {kind} scaling",
            )
    left.set_xticks([2.5 * n + 0.5 for n in range(len(results["models"]))], list(results["models"]))
    left.set_ylabel("seconds of a step, measured")
    handles, labels = left.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    left.set_ylim(0, 1.3 * top)  # room for the legend, and for all of the highest bar
    left.legend(unique.values(), unique.keys(), fontsize=8, loc="upper left", ncols=2)
    right.set(xscale="log", xlabel="workers", ylabel="efficiency", ylim=(0, 1.05))
    counts = [row["workers"] for row in rows]
    right.set_xticks(counts, [str(count) for count in counts], minor=False)
    right.minorticks_off()
    right.set_title("extrapolated")
    right.legend(fontsize=8)
    figure.tight_layout()
    return figure
