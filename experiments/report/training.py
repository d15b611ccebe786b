"""Page of a training, from its `metrics.jsonl` alone: curves over the steps, and the last epoch."""

import json
from pathlib import Path

from experiments.report import document, plots
from experiments.report.text import (
    decimals,
    duration,
    escape,
    finite,
    integer,
    listing,
    percent,
    significant,
)

# The colours of the page, by the names that the style sheet has for them.
_FIRST, _SECOND, _THIRD, _FOURTH = "bilevel", "equilibrium", "total_variation", "measurement"
_DASHED = (4, 1.6)
_STEPS = "_forward_steps"  # how the name of a layer that solves is known
_X = "training step"

_WORK = """Means over the images of an epoch's steps. A <i>map</i> is an evaluation of the map that
is solved, a <i>product</i> one with its Jacobian; the steps <i>backward</i> are products with the
transposed Jacobian."""
_CONDITIONING = """Measured after each epoch on one fixed batch of validation images, at the
solutions: <i>A = I − J</i> with the Jacobian <i>J</i> of the map that is solved. All are estimates
by a few Lanczos steps, the extremes over the images: the true condition is rather worse. The
condition is the norm of <i>A</i> over the smallest eigenvalue of its symmetric part; where that is
not positive <i>A</i> may be singular, and there is none."""

CSS = """
.figures { margin: 0 0 1rem; }
.plots .legend { margin: .2rem 0 .1rem; }
.plots .legend svg { width: 2.4em; height: .8em; flex: none; }
.plots figure { align-self: end; }
"""


def read_metrics(path):
    """The lines of steps and those of epochs of a `metrics.jsonl`; both empty if there is none.

    A line that is not whole, as it is being written, is left out.
    """
    path, steps, epochs = Path(path), [], []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            (epochs if "epoch" in row else steps).append(row)
    return steps, epochs


def write_training_report(path, title, steps, epochs):
    """Writes the curves of a training as one HTML file that needs nothing else.

    The file appears as a whole or not at all. What was not logged (validation, solves, their
    conditioning) has no curve.

    Args:
        path: where to write it; a file that is there is replaced.
        title: what the training is called, plain text.
        steps: rows with `step`, `loss`, `gradient_norm`, `learning_rate` and `seconds`.
        epochs: rows with `epoch`, `step`, `seconds`, and all that was logged of an epoch.

    Returns:
        The path, as a `pathlib.Path`.

    Raises:
        ValueError: if there is no epoch.
    """
    if not epochs:
        raise ValueError(
            "Expected rows of at least one epoch. Received none: the training has not got so far."
        )
    layers = _layers(epochs[-1])
    parts = [("training", "Training", "", _learning(steps, epochs))]
    for number, layer in enumerate(layers):
        suffix = f" of {layer}" if len(layers) > 1 else ""
        work = _work(f"work{number}", layer, epochs)
        parts.append((f"work-{number}", f"Solves{suffix}", _WORK, work))
        condition = _conditioning(f"condition{number}", layer, epochs)
        parts.append((f"condition-{number}", f"Conditioning{suffix}", _CONDITIONING, condition))
    main = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{note and f"<p>{note}</p>"}'
        f'<div class="plots">{body}</div></section>'
        for key, name, note, body in parts
        if body
    )
    page = document.document(f"Training: {title}", _header(title, steps, epochs), main, "", CSS)
    return document.write(path, page)


def _header(title, steps, epochs):
    last, best = epochs[-1], _best(epochs)
    counts = [(last["epoch"], "epoch"), (last["step"], "step")]
    said = listing(f"{integer(n)} {what}{'' if n == 1 else 's'}" for n, what in counts)
    seconds = sum(finite(row.get("seconds")) or 0.0 for row in epochs)
    if seconds:
        said += f", in {duration(seconds)}"
    numbers = []
    for name, row in (("Least loss", best), ("Last epoch", last)):
        shown = [f"epoch {integer(row['epoch'])}"]
        for what, key in (("on validation images", "val_"), ("in training", "")):
            loss, psnr = row.get(f"{key}loss"), row.get(f"{key}psnr")
            if finite(loss) is not None:
                score = "" if finite(psnr) is None else f", {decimals(psnr)} dB"
                shown.append(f"loss {significant(loss)}{score} {what}")
        numbers.append((name, "; ".join(shown)))
    half = [finite(row.get("seconds")) for row in steps[len(steps) // 2 :]]
    half = sorted(value for value in half if value is not None)
    if half:
        median = duration(half[len(half) // 2])
        numbers.append(("A step takes", f"{median}, the median of the second half"))
    numbers += _solves(last)
    if skipped := last.get("skipped"):
        numbers.append(("Left out", f"{integer(skipped)} steps without a finite gradient"))
    return f"""<header>
<p class="kicker">deq_keras · a training</p>
<h1>{escape(title)}</h1>
<p class="lead"><b>{escape(said)}.</b></p>
<div class="figures">{document.pairs(numbers)}</div>
</header>"""


def _layers(row):
    """The names of the layers that say of an epoch how they solved."""
    return [key[: -len(_STEPS)] for key in row if key.endswith(_STEPS) and key[:4] != "val_"]


def _solves(last):
    """What the last epoch's solves took, a line for each layer."""
    for layer in _layers(last):
        said = [f"{decimals(last[layer + _STEPS], 1)} steps forward"]
        if (backward := finite(last.get(f"{layer}_backward_steps"))) is not None:
            said.append(f"{decimals(backward, 1)} backward")
        share = percent(last.get(f"{layer}_converged"))
        yield f"Solves of {layer}", f"{listing(said)}; {share} converged"


def _best(epochs):
    """The epoch with the least loss, on validation images if there are some."""
    for key in ("val_loss", "loss"):
        rows = [row for row in epochs if finite(row.get(key)) is not None]
        if rows:
            return min(rows, key=lambda row: row[key])
    return epochs[-1]


class _Panels:
    """Figures of one section, for rows that share their steps.

    Args:
        key: what makes ids unique in the page.
        rows: of the epochs.
    """

    def __init__(self, key, rows):
        self.key, self.rows, self.figures = key, rows, []

    def add(self, title, lines, y_label, **options):
        """A figure of those lines that have points: pairs of a label and a `plots.Line`."""
        found = [(label, line) for label, line in lines if _has_points(line)]
        name = f"{self.key}-{len(self.figures)}"
        drawn = [line for _, line in found]
        svg = plots.draw(name, title, drawn, _X, y_label, log_x=False, smooth=True, **options)
        if svg:
            legend = plots.legend(found) if len(lines) > 1 else ""
            self.figures.append(
                f"<figure><figcaption>{escape(title)}</figcaption>{legend}{svg}</figure>"
            )

    def line(self, label, key, colour, dashes=(), marker="o", scale=1.0):
        """A label, and the line of an entry over the epochs."""
        y = [finite(row.get(key)) for row in self.rows]
        y = [None if value is None else scale * value for value in y]
        return label, plots.Line([row["step"] for row in self.rows], y, colour, dashes, marker)

    def html(self):
        """All figures."""
        return "".join(self.figures)


def _has_points(line):
    return any(finite(value) is not None for value in line.y)


def _learning(steps, epochs):
    panels = _Panels("learning", epochs)

    def every(label, key):
        x, y = [row["step"] for row in steps], [row.get(key) for row in steps]
        return label, plots.Line(x, y, _FIRST, marker="o")

    loss = [every("each step", "loss"), panels.line("validation", "val_loss", _SECOND, marker="D")]
    panels.add("Loss", loss, "loss", log_y=True)
    psnr = [
        panels.line("training", "psnr", _FIRST),
        panels.line("validation", "val_psnr", _SECOND, marker="D"),
    ]
    panels.add("PSNR", psnr, "PSNR [dB]")
    panels.add("Time of a step", [every("each step", "seconds")], "seconds", log_y=True)
    gradient = [every("each step", "gradient_norm")]
    panels.add("Norm of the gradient", gradient, "norm", log_y=True)
    return panels.html()


def _work(key, layer, epochs):
    panels = _Panels(key, epochs)
    label, maps = panels.line("maps", f"{layer}{_STEPS}", _FIRST)
    products = panels.line("products", f"{layer}_forward_products", _THIRD, marker="s")
    # Steps are both together.
    pairs = zip(maps.y, products[1].y, strict=True)
    alone = [total if of is None or total is None else total - of for total, of in pairs]
    lines = [
        (label, maps._replace(y=alone)),
        products,
        panels.line("backward", f"{layer}_backward_steps", _SECOND, _DASHED, "D"),
    ]
    panels.add("Work for an image in a step", lines, "number", log_y=True)
    lines = [
        panels.line("forward", f"{layer}_converged", _FIRST, scale=100.0),
        panels.line("backward", f"{layer}_backward_converged", _SECOND, _DASHED, "D", 100.0),
    ]
    panels.add("Images that converged", lines, "%", y_limits=(-4.0, 104.0))
    lines = [
        panels.line("forward", f"{layer}_forward_residual", _FIRST),
        panels.line("backward", f"{layer}_backward_residual", _SECOND, _DASHED, "D"),
    ]
    panels.add("Relative residuals", lines, "residual", log_y=True)
    bound = [panels.line("certified bound", f"{layer}_error_bound", _FIRST)]
    panels.add("Bound on the error of a pixel", bound, "root mean square", log_y=True)
    return panels.html()


def _conditioning(key, layer, epochs):
    panels = _Panels(key, epochs)
    panels.add(
        "Condition number",
        [panels.line("condition", f"{layer}_condition", _FIRST)],
        "condition",
        log_y=True,
    )
    panels.add(
        "Size of A",
        [
            panels.line("norm", f"{layer}_norm", _FIRST),
            panels.line("largest eigenvalue, symmetric part", f"{layer}_largest", _FOURTH, _DASHED),
            panels.line("norm of the skew part", f"{layer}_skew", _SECOND, marker="D"),
        ],
        "size",
    )
    panels.add(
        "Smallest eigenvalue of the symmetric part",
        [panels.line("smallest", f"{layer}_smallest", _FIRST)],
        "eigenvalue",
    )
    panels.add("Weight λ", [panels.line("λ", f"{layer}_weight", _THIRD)], "weight", log_y=True)
    sharpness = [panels.line("sharpness", f"{layer}_largest_sharpness", _THIRD)]
    panels.add("Largest sharpness", sharpness, "sharpness", log_y=True)
    return panels.html()
