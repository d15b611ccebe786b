"""Tables of the reproduction: claims, what unconverged solves cost, the authors' code, all runs."""

from experiments.report.tables import chip, column_heads, scrolling
from experiments.report.text import (
    DASH,
    MINUS,
    decimals,
    duration,
    escape,
    finite,
    integer,
    percent,
    significant,
)
from experiments.reproduction import groups

# A verdict's symbol says it without colour; the class colours it.
VERDICTS = {
    "supported": ("✓", "good"),
    "contradicted": ("✗", "bad"),
    "mixed": ("±", "mixed"),
    "not tested": ("○", "untested"),
}


def _steps(value):
    return decimals(value, 1).removesuffix(".0")


def _gap(first, second):
    """(first − second) / second as a signed percentage, or a dash."""
    first, second = finite(first), finite(second)
    if first is None or not second:
        return DASH
    change = 100 * (first - second) / abs(second)
    return f"{change:+.2f} %".replace("-", MINUS)


def _row(cells, head=""):
    return f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _head(text, rows=1, run=None):
    span = f' rowspan="{rows}"' if rows > 1 else ""
    dot = chip(groups.method(run)) if run else ""
    return f'<th scope="{"rowgroup" if rows > 1 else "row"}"{span}>{dot}{escape(text)}</th>'


def claims(entries):
    """The claims of the paper and what became of them, or a sentence that there are none."""
    if not entries:
        return "<p>No claim was judged in this run.</p>"
    rows = []
    for entry in entries:
        verdict = str(entry.get("verdict") or "not tested")
        symbol, kind = VERDICTS.get(verdict, ("?", "untested"))
        cells = (
            ("Source", escape(entry.get("source") or DASH)),
            (
                "Verdict",
                f'<span class="verdict-word {kind}"><span aria-hidden="true">{symbol}</span> '
                f"{escape(verdict)}</span>",
            ),
            ("Evidence", escape(entry.get("evidence") or DASH)),
        )
        cells = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells)
        claim = escape(entry.get("claim") or DASH)
        rows.append(f'<tr><th scope="row">{claim}</th>{cells}</tr>')
    heads = column_heads((h, "") for h in ("Claim", "Source", "Verdict", "Evidence"))
    return (
        f'<table class="summary claims"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def costs(runs, among):
    """Two rows for each pair of runs that differ in their solves alone; empty if there is none.

    Args:
        runs: those of the table.
        among: all runs, which decide what the rows are called.
    """
    found = groups.pairs(runs)
    if not found:
        return ""
    bodies = []
    for pair in found:
        times = [groups.seconds_of_epoch(run) for run in pair]
        ratio = DASH
        if all(times):
            ratio = f"{significant(times[1] / times[0], 2)} ×"
        rows = []
        for number, run in enumerate(pair):
            final = run.get("final") or {}
            cells = [
                escape(groups.settings(run)["fidelity"]),
                significant(groups.final_loss(run)),
                significant(final.get("exact_test_loss")),
                significant(final.get("gradient_error")),
                decimals(final.get("gradient_cosine"), 4),
                significant(groups.last(run, "backward_residual"), 2),
                percent(groups.last(run, "converged")),
                percent(groups.last(run, "backward_converged")),
                significant(times[number]),
                ratio if number else "",
            ]
            title = groups.title(run, among, without=("fidelity",))
            rows.append(_row(cells, "" if number else _head(title, 2, run)))
        bodies.append("".join(rows))
    heads = column_heads(
        (
            ("Setting", ""),
            ("Mode", ""),
            ("Test loss", "as solved"),
            ("Test loss", "solved exactly"),
            ("Gradient error", "relative"),
            ("Gradient cosine", ""),
            ("Backward residual", "relative"),
            ("Converged", "forward"),
            ("Converged", "backward"),
            ("Time", "s an epoch"),
            ("Time", "ours ÷ paper"),
        )
    )
    return scrolling("What unconverged solves cost", heads, "".join(bodies), "paired")


def original(runs):
    """Each epoch of the authors' code beside the run on the same data; empty if none is known."""
    rows = []
    for run in runs:
        points = [p for p in run.get("original") or [] if p and len(p) > 2]
        points = {p[0]: p for p in points if finite(p[0]) is not None}
        if not points:
            continue
        own = {e.get("epoch"): e for e in run.get("epochs") or [] if e}
        for number, (epoch, point) in enumerate(sorted(points.items())):
            entry, cells = own.get(epoch) or {}, [integer(epoch)]
            for key, theirs in (("train_loss", point[1]), ("test_loss", point[2])):
                cells += [
                    significant(theirs, 4),
                    significant(entry.get(key), 4),
                    _gap(entry.get(key), theirs),
                ]
            rows.append(
                _row(cells, "" if number else _head(groups.title(run, runs), len(points), run))
            )
    if not rows:
        return ""
    part = [("authors' code", "here", "difference")] * 2
    columns = [
        (name, unit)
        for name, units in zip(("Training loss", "Test loss"), part, strict=True)
        for unit in units
    ]
    heads = column_heads((("Run", ""), ("Epoch", ""), *columns))
    return scrolling("Against the authors' code", heads, "".join(rows), "paired each")


def everything(runs):
    """All runs, a row each: the settings that vary, and what was measured."""
    keys = groups.varying(runs)
    rows = []
    for run in runs:
        own, final = groups.settings(run), run.get("final") or {}
        start = next((e for e in run.get("epochs") or [] if e and e.get("epoch") == 0), {})
        cells = [DASH if own.get(k) is None else escape(groups.words(own[k])) for k in keys]
        cells += [
            significant(start.get("train_loss")),
            significant(start.get("test_loss")),
            significant(final.get("train_loss")),
            significant(final.get("test_loss")),
            significant(final.get("exact_test_loss")),
            decimals(final.get("psnr")),
            significant(final.get("initial_gradient_error"), 2),
            significant(final.get("gradient_error"), 2),
            _steps(groups.last(run, "forward_steps")),
            _steps(groups.last(run, "backward_steps")),
            significant(groups.last(run, "forward_residual"), 2),
            significant(groups.last(run, "backward_residual"), 2),
            percent(groups.last(run, "converged")),
            duration(run.get("seconds")),
            integer(run.get("parameters")),
            f'<span class="failed">{escape(run["failed"])}</span>' if run.get("failed") else DASH,
        ]
        rows.append(_row(cells, _head(groups.name(run), run=run)))
    columns = [
        ("Training loss", "before"),
        ("Test loss", "before"),
        ("Training loss", "after"),
        ("Test loss", "after"),
        ("Test loss", "solved exactly"),
        ("PSNR", "dB"),
        ("Gradient error", "before"),
        ("Gradient error", "after"),
        ("Steps", "forward"),
        ("Steps", "backward"),
        ("Residual", "forward"),
        ("Residual", "backward"),
        ("Converged", "of images"),
        ("Time", "in all"),
        ("Parameters", ""),
        ("Failed", ""),
    ]
    settings = [(escape(groups.heading(k)), "") for k in keys]
    heads = column_heads((("Run", ""), *settings, *columns))
    return scrolling("All runs", heads, "".join(rows), "runs")
