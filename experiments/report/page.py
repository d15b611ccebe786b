"""Page of a comparison: its sections, and how it is written."""

import base64
import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

from experiments.report import panels, style
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

_PAPER = "https://arxiv.org/abs/2206.13193"


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
    text = _page(results, pictures)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _page(results, pictures):
    tasks = results["tasks"]
    rows, rung = panels.prepare({task: pictures[task] for task in tasks if task in pictures})
    sections = [
        _section(number, tasks[task], rows.get(task, ()), pictures.get(task, {}), rung)
        for number, task in enumerate(tasks, 1)
    ]
    titles = ", ".join(str(task.get("title") or key) for key, task in tasks.items())
    digest = base64.b64encode(hashlib.sha256(style.SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The browser itself refuses whatever is not in this file.
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>Bilevel learning and deep equilibrium models: {escape(titles)}</title>\n"
        f"<style>{style.CSS}</style>\n</head>\n<body>\n{_header(results)}\n"
        f"<main>\n{''.join(sections)}\n</main>\n{_footer(results)}\n"
        f"<script>{style.SCRIPT}</script>\n</body>\n</html>\n"
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
gradient step on an energy: D. Riccio, M. J. Ehrhardt and M. Benning, <i>Regularization of Inverse
Problems: Deep Equilibrium Models versus Bilevel Learning</i>, 2022,
<a href="{_PAPER}">arXiv:2206.13193</a>.</p>
<div class="formulas">
<div><b>Bilevel learning</b><span class="formula"><i>u</i>* = argmin<sub><i>u</i></sub>
<i>E</i>(<i>u</i>)<small><i>E</i>(<i>u</i>) = ½ ‖<i>Ku</i> − <i>y</i>‖² +
<i>λ</i><i>R</i>(<i>u</i>), with <i>R</i> learned</small></span></div>
<div><b>Deep equilibrium model</b><span class="formula"><i>z</i>* = <i>f</i>(<i>z</i>*, <i>y</i>)
<small><i>f</i> learned, and in general no gradient step of any energy</small></span></div>
</div></div>
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
    data, versions = results.get("data") or {}, results.get("versions") or {}
    machine = results.get("machine") or {}
    when = str(results.get("created") or DASH)
    try:
        parsed = datetime.fromisoformat(when.replace("Z", "+00:00"))
        when = f"{parsed.day} {parsed:%B %Y, %H:%M} {parsed.tzname() or ''}".strip()
    except ValueError:
        pass  # shown as it is
    pairs = [("Source", data.get("source") or DASH)]
    for split in ("train", "validation", "test"):
        names = data.get(split) or []
        pairs.append((split.capitalize(), f"{', '.join(map(str, names)) or DASH} ({len(names)})"))
    devices = ", ".join(map(str, machine.get("devices") or ())) or DASH
    run = [
        ("Made", when),
        ("Took", duration(results.get("seconds"))),
        ("Seed", DASH if results.get("seed") is None else results["seed"]),
        ("Versions", ", ".join(f"{k} {v}" for k, v in versions.items()) or DASH),
        ("Machine", f"{integer(machine.get('cpus'))} CPUs; devices: {devices}"),
    ]
    config = json.dumps(results.get("config") or {}, indent=2, default=str, ensure_ascii=False)
    return f"""<footer><section><h2>How this was made</h2>
<h3>Data</h3>{_pairs(pairs)}
<h3>To make it again</h3><pre><code>{escape(results.get("command") or DASH)}</code></pre>
{_pairs(run)}
<details><summary>Effective configuration</summary><pre><code>{escape(config)}</code></pre>
</details>
</section></footer>"""


def _pairs(pairs):
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
    return f"<dl>{items}</dl>"
