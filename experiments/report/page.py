"""Page of a comparison: its sections, and how it is written."""

from experiments.report import document, panels
from experiments.report.curves import curve_panels
from experiments.report.tables import image_table, summary_table, task_table
from experiments.report.text import (
    DASH,
    duration,
    escape,
    finite,
    integer,
    listing,
    lowered,
    significant,
)
from experiments.report.words import TIE, overall, verdict


def write_report(path, results, pictures):
    """Writes a comparison as one HTML file that needs nothing else: no network, no script.

    The file appears as a whole or not at all. Values that are None, NaN or absent are shown as
    a dash, and all text is escaped.

    Args:
        path: where to write it; a file that is there is replaced.
        results: the contents of `results.json`: `"tasks"` and what describes the run.
        pictures: task -> `{"truth": [...], "measurement": [...], "total_variation": [...],
            "bilevel": [...], "equilibrium": [...], "names": [...], "filters": {...}}` with
            pictures `(height, width, channels)` on [0, 1] and kernels
            `(height, width, channels, filters)`. A task without an entry has no pictures.

    Returns:
        The path, as a `pathlib.Path`.

    Raises:
        ValueError: if `results` has no tasks, or `pictures` names a task that is not there.
    """
    tasks = results.get("tasks") if isinstance(results, dict) else None
    if not isinstance(tasks, dict):
        received = f"the keys {list(results)}" if isinstance(results, dict) else type(results)
        raise ValueError(
            "Expected `results` as a dict with the key 'tasks', a dict of task -> results. "
            f"Received {received}: pass the contents of results.json."
        )
    if unknown := set(pictures) - set(tasks):
        raise ValueError(
            f"Expected the keys of `pictures` among the tasks {list(tasks)}. Received also "
            f"{sorted(unknown)}: add their results or leave their pictures out."
        )
    return document.write(path, _page(results, pictures))


def _page(results, pictures):
    tasks = results["tasks"]
    rows, rung = panels.prepare({task: pictures[task] for task in tasks if task in pictures})
    sections = [
        _section(number, tasks[task], rows.get(task, ()), pictures.get(task, {}), rung)
        for number, task in enumerate(tasks, 1)
    ]
    titles = ", ".join(str(task.get("title") or key) for key, task in tasks.items())
    return document.document(
        f"Bilevel learning and deep equilibrium models: {titles}",
        _header(results),
        "".join(sections),
        _footer(results),
    )


def _header(results):
    tasks = results["tasks"]
    test = results.get("data", {}).get("test") or []
    number = f"{len(test)} photographs" if len(test) > 1 else "a photograph"
    titles = listing(lowered(task.get("title") or key) for key, task in tasks.items())
    table = summary_table(tasks) if tasks else "<p>No task was run.</p>"
    return f"""<header>
<p class="kicker">deq_keras · a comparison on photographs</p>
<h1>Does it help to leave the energy behind?</h1>
<p class="lead"><b>{escape(overall(tasks))}</b></p>
<div class="intro"><p>Four answers to {escape(titles) or "no task"} on {number} kept for
testing: the measurement as it is, total variation with a tuned weight, a regulariser learned by
bilevel optimisation, and a deep equilibrium model that starts from the bilevel one and is trained
on. Bilevel learning is the special case of a deep equilibrium model whose map <i>f</i> is a
gradient step on an energy: {document.CITATION}.</p>
{document.FORMULAS}</div>
{table}
<p class="note">PSNR and SSIM are means over the test images; the best PSNR of a task is in bold.
The bars show how far a method gets from the measurement to the best result. Less than {TIE} dB
apart is called a tie in the text.</p>
</header>"""


def _section(number, task, rows, pictures, rung):
    title = escape(task.get("title") or f"Task {number}")
    parts = [
        f'<section id="task-{number}"><h2>{title}</h2>',
        f'<p class="description">{escape(task.get("description") or "")}</p>',
        f'<p class="verdict">{escape(verdict(task))}</p>',
    ]
    if rows:
        sides = sorted({row["box"][2] for row in rows})
        note = (
            f"The box marks the detail that is shown enlarged, {listing(map(str, sides))} pixels "
            "wide: there the methods differ and the truth has structure. The coloured pictures "
            "are the errors, on one scale for all methods and pictures of the task. PSNR and SSIM "
            "are each picture's own."
        )
        largest, quality = rung
        if quality is not None:
            note += " To keep this file small, whole pictures are JPEGs"
            note += f" of at most {largest} pixels; " if largest else "; "
            note += "the details are exact."
        parts += [
            f"<h3>Pictures</h3>{panels.picture_rows(task, rows)}",
            f'<p class="note">{note}<span class="hint" hidden> Click a picture and it fills the '
            "window; the arrow keys, or further clicks, then flip between the methods.</span></p>",
        ]
    parts += [
        f"<h3>All numbers</h3>{task_table(task)}",
        '<p class="note">Test images, except for the training loss. Losses are mean squared '
        "errors on images on [0, 1]. Forward and backward steps are iterations for the solution "
        "and for its derivative.</p>",
        _details(task.get("details")),
        image_table(task),
        curve_panels(number, task),
    ]
    if filters := panels.filter_panels(pictures.get("filters") or {}):
        parts.append(f"<h3>Learned filters</h3>{filters}")
    return "".join(parts) + "</section>"


def _details(details):
    """The free numbers of a task, on a line."""
    if not details:
        return ""
    shown = " · ".join(
        f"{key.replace('_', ' ')} {value if finite(value) is None else significant(value)}"
        for key, value in details.items()
    )
    return f'<p class="note">{escape(shown[:1].upper() + shown[1:])}</p>'


def _footer(results):
    data, machine = results.get("data") or {}, results.get("machine") or {}
    pairs = [("Source", data.get("source") or DASH)]
    for split in ("train", "validation", "test"):
        names = data.get(split) or []
        pairs.append((split.capitalize(), f"{', '.join(map(str, names)) or DASH} ({len(names)})"))
    devices = ", ".join(map(str, machine.get("devices") or ())) or DASH
    run = [
        ("Made", document.date(results.get("created"))),
        ("Took", duration(results.get("seconds"))),
        ("Seed", DASH if results.get("seed") is None else results["seed"]),
        ("Versions", document.versions(results)),
        ("Machine", f"{integer(machine.get('cpus'))} CPUs; devices: {devices}"),
    ]
    return document.making(results, pairs, run)
