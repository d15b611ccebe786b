"""What the pages share: the frame, the words on the paper, the parts of a footer, the writing."""

import base64
import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

from experiments.report import style
from experiments.report.text import DASH, escape

PAPER = "https://arxiv.org/abs/2206.13193"
CITATION = f"""D. Riccio, M. J. Ehrhardt and M. Benning, <i>Regularization of Inverse
Problems: Deep Equilibrium Models versus Bilevel Learning</i>, 2022,
<a href="{PAPER}">arXiv:2206.13193</a>"""
FORMULAS = """<div class="formulas">
<div><b>Bilevel learning</b><span class="formula"><i>u</i>* = argmin<sub><i>u</i></sub>
<i>E</i>(<i>u</i>)<small><i>E</i>(<i>u</i>) = ½ ‖<i>Ku</i> − <i>y</i>‖² +
<i>λ</i><i>R</i>(<i>u</i>), with <i>R</i> learned</small></span></div>
<div><b>Deep equilibrium model</b><span class="formula"><i>z</i>* = <i>f</i>(<i>z</i>*, <i>y</i>)
<small><i>f</i> learned, and in general no gradient step of any energy</small></span></div>
</div>"""


def document(title, header, main, footer, css=""):
    """A page that needs nothing else: no network, and complete without its script.

    Args:
        title: plain text, escaped here.
        header: an element.
        main: the sections, as one string.
        footer: an element.
        css: what is added to the style sheet.
    """
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
        f"<title>{escape(title)}</title>\n"
        f"<style>{style.CSS}{css}</style>\n</head>\n<body>\n{header}\n"
        f"<main>\n{main}\n</main>\n{footer}\n"
        f"<script>{style.SCRIPT}</script>\n</body>\n</html>\n"
    )


def write(path, text):
    """Writes a page, which appears as a whole or not at all; returns its `pathlib.Path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def date(created):
    """The time of an ISO string as a reader wants it; what is no such string as it is."""
    when = str(created or DASH)
    try:
        parsed = datetime.fromisoformat(when.replace("Z", "+00:00"))
        return f"{parsed.day} {parsed:%B %Y, %H:%M} {parsed.tzname() or ''}".strip()
    except ValueError:
        return when


def pairs(items):
    """Names and values, as a list of definitions."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items)
    return f"<dl>{items}</dl>"


def making(results, data, run):
    """The footer: how a page was made.

    Args:
        results: its `"command"` and `"config"` are shown.
        data: pairs of a name and a value on the data.
        run: pairs on the run.
    """
    config = json.dumps(results.get("config") or {}, indent=2, default=str, ensure_ascii=False)
    return f"""<footer><section><h2>How this was made</h2>
<h3>Data</h3>{pairs(data)}
<h3>To make it again</h3><pre><code>{escape(results.get("command") or DASH)}</code></pre>
{pairs(run)}
<details><summary>Effective configuration</summary><pre><code>{escape(config)}</code></pre>
</details>
</section></footer>"""


def versions(results):
    """The versions of `results` on a line, or a dash."""
    return ", ".join(f"{k} {v}" for k, v in (results.get("versions") or {}).items()) or DASH
