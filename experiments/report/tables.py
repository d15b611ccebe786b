"""Tables: one glance over all tasks, everything about a task, each of its test images."""

from experiments.methods import METHODS
from experiments.report.text import (
    DASH,
    decimals,
    escape,
    finite,
    integer,
    label,
    percent,
    significant,
)

# Key, heading, unit, format, and which way is better (0: neither).
_COLUMNS = (
    ("psnr", "PSNR", "dB", decimals, 1),
    ("ssim", "SSIM", "", lambda v: decimals(v, 3), 1),
    ("train_loss", "Training loss", "MSE × 10⁻³", lambda v: significant(v, 3, 1e3), -1),
    ("test_loss", "Test loss", "MSE × 10⁻³", lambda v: significant(v, 3, 1e3), -1),
    ("seconds", "Training time", "s", significant, 0),
    ("solve_seconds", "Time per image", "s", significant, 0),
    ("forward_steps", "Forward", "steps", lambda v: decimals(v, 1).removesuffix(".0"), 0),
    ("backward_steps", "Backward", "steps", lambda v: decimals(v, 1).removesuffix(".0"), 0),
    ("converged", "Converged", "of images", percent, 0),
    ("parameters", "Parameters", "", integer, 0),
)


def _best(methods, key, better):
    values = [finite((entry or {}).get(key)) for entry in methods.values()]
    values = [v for v in values if v is not None]
    return (max(values) if better > 0 else min(values)) if better and values else None


def _cell(value, shown, best):
    if best is not None and finite(value) == best:
        return f"<td><strong>{shown}</strong></td>"
    return f"<td>{shown}</td>"


def _present(task):
    """The methods of a task that have results: the known ones first, in their order."""
    names = [m for m, entry in task.get("methods", {}).items() if entry]
    return [*(m for m in METHODS if m in names), *(m for m in names if m not in METHODS)]


def chip(method):
    """A dot in the colour of a method."""
    known = method if method in METHODS else "measurement"
    return f'<span class="chip" style="background:var(--{known})"></span>'


def column_heads(columns):
    """The heads of columns, given as pairs of a heading and a unit, which may be empty."""
    return "".join(
        f'<th scope="col">{heading}{f"<small>{unit}</small>" if unit else ""}</th>'
        for heading, unit in columns
    )


def scrolling(name, heads, rows, kind=""):
    """A table that scrolls in a box of its own where the window is narrow.

    Args:
        name: what a reader who cannot see it is told.
        heads: the cells of its head.
        rows: its rows, as one string.
        kind: more classes of the style sheet.
    """
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="{f"full-table {kind}".strip()}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def summary_table(tasks):
    """PSNR and SSIM of every method and task, and how far each gets from the measurement.

    Args:
        tasks: `results["tasks"]`: key -> task.

    Returns:
        A `<table>`; the best PSNR in a row is in bold.
    """
    names = [m for m in METHODS if any(m in _present(t) for t in tasks.values())]
    titles = {m: label(next(t for t in tasks.values() if m in _present(t)), m) for m in names}
    heads = "".join(f'<th scope="col">{chip(m)}{escape(titles[m])}</th>' for m in names)
    rows = []
    for number, (key, task) in enumerate(tasks.items(), 1):
        methods = task.get("methods", {})
        start = finite((methods.get("measurement") or {}).get("psnr"))
        best = _best(methods, "psnr", 1)
        cells = []
        for method in names:
            entry = methods.get(method) or {}
            value = finite(entry.get("psnr"))
            shown = decimals(value)
            unit = ' <span class="unit">dB</span>' if value is not None else ""
            big = f"<strong>{shown}</strong>" if value is not None and value == best else shown
            share = 0.0
            if None not in (value, start, best) and best > start:
                share = max(0.0, (value - start) / (best - start))
            bar = f'<span class="bar"><i style="width:{100 * share:.1f}%;'
            bar += f'background:var(--{method})"></i></span>'
            cells.append(
                f'<td data-label="{escape(titles[method])}"><span class="big">{big}{unit}</span>'
                f'{bar}<span class="small">SSIM {decimals(entry.get("ssim"), 3)}</span></td>'
            )
        title = f'<a href="#task-{number}">{escape(task.get("title") or key)}</a>'
        rows.append(f'<tr><th scope="row">{title}</th>{"".join(cells)}</tr>')
    return (
        f'<table class="summary"><thead><tr><th scope="col">Task</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def task_table(task):
    """All numbers of a task, a row per method; the best of a column in bold."""
    methods = task.get("methods", {})
    heads = column_heads([("Method", ""), *((h, unit) for _, h, unit, _, _ in _COLUMNS)])
    rows = []
    for method in _present(task):
        cells = "".join(
            _cell(methods[method].get(key), show(methods[method].get(key)), _best(methods, key, up))
            for key, _, _, show, up in _COLUMNS
        )
        name = f"{chip(method)}{escape(label(task, method))}"
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return scrolling("All numbers", heads, "".join(rows))


def image_table(task):
    """Each test image with each method: PSNR, SSIM, steps, residual; an empty string if none."""
    methods = task.get("methods", {})
    rows = []
    for method in _present(task):
        for image in methods[method].get("images") or []:
            flag = image.get("converged")
            cells = (
                decimals(image.get("psnr")),
                decimals(image.get("ssim"), 3),
                integer(image.get("steps")),
                significant(image.get("residual"), 2),
                DASH if flag is None else ("yes" if flag else "no"),
            )
            name = f"{chip(method)}{escape(label(task, method))}"
            rows.append(
                f'<tr><td class="name">{escape(image.get("name", DASH))}</td>'
                f'<th scope="row">{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
            )
    if not rows:
        return ""
    heads = column_heads(
        (
            ("Image", ""),
            ("Method", ""),
            ("PSNR", "dB"),
            ("SSIM", ""),
            ("Steps", ""),
            ("Residual", "relative"),
            ("Converged", ""),
        )
    )
    table = scrolling("Each test image", heads, "".join(rows), "each")
    return f"<details><summary>Each test image</summary>{table}</details>"
