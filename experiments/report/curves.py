"""Curves of a task: what is drawn, and the words around it."""

from experiments.methods import CURVES, FURTHER
from experiments.report import plots
from experiments.report.text import finite, label, significant


def _legend(task, methods):
    return plots.legend(
        (
            FURTHER.label if method == FURTHER.key else label(task, method),
            plots.Line(None, None, method, CURVES[method].dashes),
        )
        for method in methods
    )


def curve_panels(number, task):
    """The plots of a task with one legend: losses, validation, residuals, PSNR against time.

    Args:
        number: of the task, for ids that are unique in the page.
        task: one entry of `results["tasks"]`.

    Returns:
        HTML, or an empty string if there is nothing to draw.
    """
    curves = task.get("curves") or {}
    training, residual = curves.get("training") or {}, curves.get("residual") or {}
    psnr_time = curves.get("psnr_time") or {}
    order = list(CURVES)
    fork = [finite(s) for s in (training.get("bilevel") or {}).get("step") or ()]
    fork = max((s for s in fork if s is not None), default=None)
    fork = fork if training.get(FURTHER.key) or training.get("equilibrium") else None

    def of(source, x, y):
        return {m: (source[m].get(x), source[m].get(y)) for m in order if source.get(m)}

    losses, scores = of(training, "step", "loss"), of(training, "step", "val_psnr")
    residuals = {m: (None, residual[m]) for m in order if residual.get(m) is not None}
    times = of(psnr_time, "seconds", "psnr")
    drawn = [
        (
            "Training loss",
            losses,
            dict(x_label="training step", y_label="mean squared error", log_y=True, fork=fork),
        ),
        (
            "PSNR on the validation images while training",
            scores,
            dict(x_label="training step", y_label="PSNR [dB]", fork=fork),
        ),
        (
            "Residual of the solver",
            residuals,
            dict(x_label="iteration", y_label="relative residual", log_y=True),
        ),
        (
            "PSNR against solving time",
            times,
            dict(x_label="seconds", y_label="PSNR [dB]"),
        ),
    ]
    figures, methods = [], set()
    for index, (title, data, options) in enumerate(drawn, 1):
        svg = plots.plot(f"p{number}-{index}", title, data, **options)
        if svg:
            figures.append(f"<figure><figcaption>{title}</figcaption>{svg}</figure>")
            methods |= set(data)
    if not figures:
        return ""
    legend = _legend(task, [m for m in order if m in methods])
    note = ""
    if fork is not None:
        note = (
            '<p class="note">At the fork the bilevel model goes on in two ways: trained further as '
            f"it is, and as an equilibrium model.{_after_fork(training)}{_median(training)}</p>"
        )
    return f'<h3>Curves</h3>{legend}<div class="plots">{"".join(figures)}</div>{note}'


def _after_fork(training):
    """The last losses of both branches, so that training longer is not taken for a better model."""
    ends = []
    for method in (FURTHER.key, "equilibrium"):
        losses = [finite(v) for v in (training.get(method) or {}).get("loss") or ()]
        losses = [v for v in losses if v is not None]
        if not losses:
            return ""
        tail = losses[-max(1, len(losses) // 10) :]
        ends.append(significant(sum(tail) / len(tail), 3, 1e3))
    return f" Their training losses end at {ends[0]} and {ends[1]} × 10⁻³."


def _median(training):
    """What thin and thick lines are, if a curve is long enough to have both."""
    longest = max((len(curve.get("loss") or ()) for curve in training.values() if curve), default=0)
    if longest <= plots.NOISY:
        return ""
    return " Thin lines are single steps, thick lines the running median."
