"""Pictures of the reproduction: reconstructions side by side, and the learned filters."""

import numpy as np

from deq_keras.plot import pictures as arrays
from experiments.report import images
from experiments.report.panels import filter_figure, picture
from experiments.report.tables import chip
from experiments.report.text import escape, significant
from experiments.reproduction import groups

ROWS = 6  # test images of a group that are shown
FILTERS = 30  # filters of a run that are shown
_BUDGET = 1_100_000  # bytes of all reconstructions, before base64 adds a third
_ORDER = [(model, mode) for mode in ("ours", "paper") for model in ("bilevel", "equilibrium")]


def shown(found, pictures):
    """The groups whose pictures are shown: the base ones, or the first of a task that has any.

    Args:
        found: the `Group`s of all runs.
        pictures: run -> its pictures.
    """
    having = [g for g in found if any(r.get("id") in pictures for r in g.runs)]
    kept, tasks = [], {str(groups.settings(g.runs[0]).get("task")) for g in having if g.base}
    for group in having:
        task = str(groups.settings(group.runs[0]).get("task"))
        if group.base or task not in tasks:
            kept.append(group)
            tasks.add(task)
    return kept


def _ordered(group, pictures):
    """A run of each model and mode, those that converge first: what starts afresh, if any does."""
    chosen = {}
    for run in group.runs:
        own = groups.settings(run)
        key = (own.get("model"), own.get("fidelity"))
        if run.get("id") in pictures:
            further = own.get("start") == "bilevel_further"
            if key not in chosen or (chosen[key][0] and not further):
                chosen[key] = (further, run)
    order = [*(k for k in _ORDER if k in chosen), *(k for k in chosen if k not in _ORDER)]
    return [chosen[k][1] for k in order]


def _batch(entry, key):
    """The pictures of one kind, on [−1, 1], as an array with an axis of images; may be empty."""
    array = entry.get(key)
    if array is None:
        return np.zeros((0, 1, 1, 1))
    array = np.asarray(array, np.float64)
    if array.ndim != 4:
        raise ValueError(
            f"Expected the pictures '{key}' as (images, height, width, channels). Received the "
            f"shape {array.shape}: add the axis that is missing."
        )
    return array


def reconstructions(found, pictures):
    """Truth, measurement and the estimates of each mode, a row a test image.

    Args:
        found: the `Group`s to show.
        pictures: run -> `{"truth": ..., "measurement": ..., "estimate": ...}` on [−1, 1].

    Returns:
        HTML, or an empty string if there are no pictures.
    """
    plan, files = [], []
    for group in found:
        runs = _ordered(group, pictures)
        entry = next(
            (pictures[r["id"]] for r in runs if len(_batch(pictures[r["id"]], "truth"))), {}
        )
        truth = _batch(entry, "truth")
        columns = [("Truth", None, truth), ("Measurement", None, _batch(entry, "measurement"))]
        columns += [
            (groups.curve(r, group.runs), r, _batch(pictures[r["id"]], "estimate")) for r in runs
        ]
        rows = []
        for index in range(min(len(truth), ROWS)):
            cards = []
            for title, run, batch in columns:
                if index < len(batch):
                    cards.append((title, run, len(files), batch[index], truth[index]))
                    files.append(arrays.as_picture((batch[index] + 1) / 2))
            rows.append(cards)
        if rows:
            plan.append((group, rows, len(truth)))
    if not plan:
        return ""
    files, _, rung = images.fitting(files, [], _BUDGET)
    parts = []
    for group, rows, count in plan:
        figures = "".join(_strip(number, row, files, rung) for number, row in enumerate(rows, 1))
        parts.append(f'<div class="group"><h4>{escape(group.title)}</h4>{figures}</div>')
        if count > len(rows):
            parts.append(f'<p class="note">The first {len(rows)} of {count} test images.</p>')
    return "".join(parts)


def _strip(number, row, files, rung):
    """A test image: the truth, the measurement and the estimates side by side."""
    cards = []
    for title, run, index, array, truth in row:
        error = None
        if title != "Truth" and array.shape == truth.shape:
            error = float(np.mean((array - truth) ** 2))
        score = f"MSE {significant(error)}" if title != "Truth" else "&nbsp;"
        size = array.shape[:2]
        caption = title if title == "Truth" else f"{title}, {score}"
        crisp = rung[0] is None or max(size) <= rung[0]
        shot = picture(files[index], size, f"Image {number}, {caption}", caption, crisp)
        dot = chip(groups.method(run) if run else "measurement") if title != "Truth" else ""
        cards.append(
            f'<div class="card"><p class="who">{dot}{escape(title)}</p>'
            f'<div class="shot whole">{shot}</div><p class="score"><span>{score}</span></p></div>'
        )
    return (
        f'<figure class="shots strip"><figcaption>Image {number}</figcaption>'
        f'<div class="cards">{"".join(cards)}</div></figure>'
    )


def _kernel(filters):
    """`(count, height, width, 1)` as a kernel `(height, width, 1, count)`."""
    filters = np.asarray(filters, np.float64)
    if filters.ndim != 4 or 0 in filters.shape:
        raise ValueError(
            "Expected the filters as (count, height, width, channels), none of them 0. Received "
            f"the shape {filters.shape}: transpose them, or leave them out."
        )
    return np.nan_to_num(np.moveaxis(filters, 0, -1))


def filters(found, pictures):
    """A, C and C − A of each run, on one grey scale a group; an empty string if there are none.

    Args:
        found: the `Group`s to show.
        pictures: run -> `{"filters": {"A": ..., "C": ...}}`, each `(count, height, width, 1)`.
    """
    parts = []
    for group in found:
        sets = []
        for run in group.runs:
            own = (pictures.get(run.get("id")) or {}).get("filters") or {}
            if own.get("A") is not None:
                sets.append((run, _chosen(own)))
        if not sets:
            continue
        limit = max(np.abs(kernel).max() for _, own in sets for kernel, _ in own.values())
        sets.sort(
            key=lambda pair: (len(pair[1]), groups.settings(pair[0]).get("fidelity") != "ours")
        )
        # Sets that are A alone stand beside each other, the others in a row of their own.
        alone = [
            _grid(f"A: {groups.curve(r, group.runs)}", *k["A"], limit)
            for r, k in sets
            if len(k) == 1
        ]
        rows = [f'<div class="filter-row alone">{"".join(alone)}</div>'] if alone else []
        for run, kernels in sets:
            if len(kernels) > 1:
                grids = "".join(_grid(key, *kernel, limit) for key, kernel in kernels.items())
                rows.append(
                    f'<p class="of-run">{chip(groups.method(run))}'
                    f"{escape(groups.curve(run, group.runs))}{_distance(pictures[run['id']])}</p>"
                    f'<div class="filter-row">{grids}</div>'
                )
        scale = f"Black is −{significant(limit, 2)}, white {significant(limit, 2)}."
        parts.append(
            f'<div class="group"><h4>{escape(group.title)}</h4><p class="note">{scale}</p>'
            f"{''.join(rows)}</div>"
        )
    return "".join(parts)


def _kernels(own):
    """A, C and C − A as far as there are, all filters of them."""
    kernels = {"A": _kernel(own["A"])}
    if own.get("C") is not None:
        kernels["C"] = _kernel(own["C"])
        if kernels["C"].shape == kernels["A"].shape:
            kernels["C − A"] = kernels["C"] - kernels["A"]
    return kernels


def _chosen(own):
    """The filters that are shown, the same ones of each kernel, and words on the whole kernel."""
    kernels = _kernels(own)
    order = np.argsort(-arrays.filter_norms(kernels["A"]), kind="stable")[:FILTERS]
    chosen = {}
    for key, kernel in kernels.items():
        height, width, _, count = kernel.shape
        alike = count == kernels["A"].shape[-1]
        picked = kernel[..., order if alike else slice(FILTERS)]
        text = f"{picked.shape[-1]} of {count} filters of {height} × {width}, "
        chosen[key] = (picked, text + f"norm {significant(np.linalg.norm(kernel))}")
    return chosen


def _distance(entry):
    """How far C is from A, over all filters."""
    kernels = _kernels(entry["filters"])
    size = np.linalg.norm(kernels["A"])
    if "C − A" not in kernels or not size:
        return ""
    return f": ‖C − A‖ / ‖A‖ = {significant(np.linalg.norm(kernels['C − A']) / size)}"


def _grid(title, kernel, text, limit):
    count = kernel.shape[-1]
    columns = min(count, max(1, round((1.5 * count) ** 0.5)))
    grid = images.filter_grid(kernel, range(count), columns, limit, "gray")
    return filter_figure(title, grid, columns, text)
