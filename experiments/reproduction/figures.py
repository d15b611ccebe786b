"""Curves of the reproduction: losses, iterations and sweeps."""

from experiments.methods import METHODS
from experiments.report import plots
from experiments.report.text import escape, finite, significant
from experiments.reproduction import groups

MANY = 6  # with more groups, those that are not the base are folded away
_WIDE = 4  # a greater ratio of losses is drawn on a logarithmic axis
_AUTHORS = "the authors' code"


def _logarithmic(lines, axis, wide):
    """Whether the values of lines are positive and span more than a ratio."""
    values = [v for line in lines for v in map(finite, line[axis] or ()) if v is not None]
    return bool(values) and min(values) > 0 and max(values) > wide * min(values)


def _legend(runs, authors=False):
    """The legend of the plots of some runs: a curve that several have is named once."""
    entries = {groups.curve(run, runs): groups.line(run, None, None) for run in runs}
    if authors:
        for run in runs:
            if run.get("original"):
                title = METHODS[groups.method(run)].label
                alone = groups.line(run, None, None, "alone")._replace(marker="o")
                entries[f"{title}, {_AUTHORS}"] = alone
    return plots.legend(entries.items())


def _block(title, figures, note=""):
    """The plots of a group under its title."""
    shown = "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"
        for caption, svg in figures
        if svg
    )
    if not shown:
        return ""
    note = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<div class="group"><h4>{escape(title)}</h4><div class="plots">{shown}</div>{note}</div>'
    )


def _folded(found, block, name, authors=False):
    """Blocks of all groups under one legend, with those that are not the base in a fold.

    Args:
        found: `Group`s.
        block: a function of a number and a group.
        name: what is folded away, in words.
        authors: whether the legend names the points of the authors' code.
    """
    blocks = [(group, block(number, group)) for number, group in enumerate(found, 1)]
    blocks = [(group, text) for group, text in blocks if text]
    if not blocks:
        return ""
    few = len(blocks) <= MANY

    def under_legend(chosen):
        runs = [run for group, _ in chosen for run in group.runs]
        return _legend(runs, authors) + "".join(text for _, text in chosen)

    rest = [(group, text) for group, text in blocks if not (group.base or few)]
    html = under_legend([(group, text) for group, text in blocks if group.base or few])
    if rest:
        html += f"<details><summary>{name} of {len(rest)} other settings</summary>"
        html += f"{under_legend(rest)}</details>"
    return html


def losses(found):
    """Test and training loss against the epoch, a pair of plots a group.

    Args:
        found: the `Group`s of all runs.

    Returns:
        HTML, or an empty string if there is nothing to draw.
    """

    def block(number, group):
        figures = []
        for part, column, caption in (
            ("test_loss", 2, "Test loss"),
            ("train_loss", 1, "Training loss"),
        ):
            lines = [groups.line(run, *groups.epochs(run, part)) for run in group.runs]
            for run in group.runs:
                points = [p for p in run.get("original") or [] if p and len(p) > column]
                x, y = [p[0] for p in points], [p[column] for p in points]
                lines.append(groups.line(run, x, y, "alone")._replace(marker="o"))
            svg = plots.draw(
                f"l{number}-{column}",
                f"{caption}, {group.title}",
                lines,
                "epoch",
                "mean squared error",
                log_x=False,
                log_y=_logarithmic(lines, 1, _WIDE),
                whole_x=True,
            )
            figures.append((caption, svg))
        measured = [(r.get("measurement") or {}).get("test_loss") for r in group.runs]
        measured = next((m for m in map(finite, measured) if m is not None), None)
        note = f"The measurement itself has a test loss of {significant(measured)}."
        return _block(group.title, figures, note if measured is not None else "")

    return _folded(found, block, "Losses", authors=True)


_ITERATIONS = (
    ("forward_steps", "Steps forward", "iterations", False),
    ("backward_steps", "Steps backward", "iterations", False),
    ("forward_residual", "Residual forward", "relative residual", True),
    ("backward_residual", "Residual backward", "relative residual", True),
)


def iterations(found):
    """Steps and residuals of the solves against the epoch; an empty string if none is known."""

    def block(number, group):
        figures = []
        for index, (key, caption, unit, log_y) in enumerate(_ITERATIONS):
            lines = [groups.line(run, *groups.epochs(run, key)) for run in group.runs]
            svg = plots.draw(
                f"i{number}-{index}",
                f"{caption}, {group.title}",
                lines,
                "epoch",
                unit,
                log_x=False,
                log_y=log_y or _logarithmic(lines, 1, 10),
                whole_x=True,
            )
            figures.append((caption, svg))
        return _block(group.title, figures)

    return _folded(found, block, "Iterations")


def sweeps(found):
    """Final test loss against each number that was varied, one plot a sweep.

    Args:
        found: `Sweep`s.

    Returns:
        HTML, or an empty string if there are none.
    """
    figures, runs = [], []
    for number, sweep in enumerate(found, 1):
        lines = []
        for members in groups.together(sweep.runs, (sweep.key,)):
            points = sorted(
                (float(groups.settings(r)[sweep.key]), groups.final_loss(r)) for r in members
            )
            lines.append(groups.line(members[0], *zip(*points, strict=True), at="every"))
        caption = f"Against {groups.setting(sweep.key)}"
        caption += f": {sweep.title}" if sweep.title else ""
        svg = plots.draw(
            f"s{number}",
            f"Test loss after training. {caption}",
            lines,
            groups.setting(sweep.key),
            "test loss after training",
            log_x=_logarithmic(lines, 0, 15),
            log_y=_logarithmic(lines, 1, 10),
            x_ticks=sorted({x for line in lines for x in line.x}),
        )
        if svg:
            figures.append(f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>")
            runs += sweep.runs
    if not figures:
        return ""
    return f'{_legend(runs)}<div class="plots">{"".join(figures)}</div>'
