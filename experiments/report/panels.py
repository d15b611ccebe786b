"""Pictures side by side, and the learned filters."""

import numpy as np

from deq_keras.plot import pictures as arrays
from experiments.methods import METHODS, RECONSTRUCTIONS
from experiments.report import images
from experiments.report.tables import chip
from experiments.report.text import (
    DASH,
    decimals,
    escape,
    finite,
    label,
    significant,
    tick,
)

_SHOWN = ("truth", *METHODS)
_PIXELATED = 320  # narrower pictures are enlarged on most screens: then show their pixels


def prepare(pictures):
    """All pictures of the page as image files that fit together.

    Args:
        pictures: task -> `{"truth": [...], "measurement": [...], ..., "names": [...]}`.

    Returns:
        task -> a list of rows (one per test image) for `picture_rows`, and the rung of
        `images.LADDER` that the whole pictures are on.
    """
    rows, photographs, maps = {}, [], []
    for task, entry in pictures.items():
        rows[task] = []
        kept = {m: [arrays.as_picture(a) for a in entry.get(m, ())] for m in _SHOWN}
        errors = {
            (m, i): arrays.error(kept[m][i], truth)
            for m in METHODS
            for i, truth in enumerate(kept["truth"])
            if i < len(kept[m]) and kept[m][i].shape == truth.shape
        }
        # The measurement does not set the scale: where pixels are missing, its error is too large.
        scale = [e.ravel() for (m, _), e in errors.items() if m != "measurement"]
        scale = scale or [e.ravel() for e in errors.values()] or [np.ones(1)]
        limit = max(float(f"{np.quantile(np.concatenate(scale), 0.995):.2g}"), 1e-6)
        names = list(entry.get("names", ()))
        for i, truth in enumerate(kept["truth"]):
            present = {m: kept[m][i] for m in _SHOWN if i < len(kept[m])}
            alike = [
                p for m, p in present.items() if m in RECONSTRUCTIONS and p.shape == truth.shape
            ]
            top, left, side = arrays.choose_detail(truth, alike)
            cells = {}
            for method, picture in present.items():
                cell = cells[method] = {"size": picture.shape[:2], "photograph": len(photographs)}
                photographs.append(picture)
                if picture.shape[:2] == truth.shape[:2]:
                    crop = picture[top : top + side, left : left + side]
                    cell["detail"] = images.file_bytes(crop)
                if (method, i) in errors:
                    cell["map"] = len(maps)
                    maps.append((errors[method, i], limit))
            rows[task].append(
                {
                    "name": str(names[i]) if i < len(names) else f"Image {i + 1}",
                    "index": i,
                    "box": (top, left, side),
                    "limit": limit,
                    "cells": cells,
                }
            )
    whole, coloured, rung = images.fitting(photographs, maps)
    for cell in (c for task in rows.values() for row in task for c in row["cells"].values()):
        cell["photograph"] = whole[cell["photograph"]]
        if "map" in cell:
            cell["map"] = coloured[cell["map"]]
        reduced = rung[0] is not None and max(cell["size"]) > rung[0]
        cell["crisp"] = cell["size"][1] < _PIXELATED and not reduced
    return rows, rung


def picture(content, size, alt, caption, crisp):
    """An image file as an element; its caption names it where the script enlarges it."""
    height, width = size
    kind = ' class="crisp"' if crisp else ""
    return (
        f'<img{kind} src="{images.uri(content)}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}" data-caption="{escape(caption)}">'
    )


def _of_image(task, method, row):
    """The numbers of one method on the test image of a row."""
    entries = (task.get("methods", {}).get(method) or {}).get("images") or []
    named = [e for e in entries if e.get("name") == row["name"]]
    return (named or entries[row["index"] : row["index"] + 1] or [{}])[0]


def _card(task, method, row, best):
    cell, (top, left, side) = row["cells"][method], row["box"]
    (height, width), name = cell["size"], label(task, method)
    numbers = {} if method == "truth" else _of_image(task, method, row)
    psnr = decimals(numbers.get("psnr"))
    caption = name if method == "truth" else f"{name}, {psnr} dB"
    alt = f"{row['name']}, {caption}"
    box = (100 * top / height, 100 * left / width, 100 * side / height, 100 * side / width)
    mark = "top:{:.2f}%;left:{:.2f}%;height:{:.2f}%;width:{:.2f}%".format(*box)
    mark = f'<span class="mark" style="{mark}"></span>' if "detail" in cell else ""
    whole = picture(cell["photograph"], cell["size"], alt, caption, cell["crisp"])
    parts = [
        f'<p class="who">{"" if method == "truth" else chip(method)}{escape(name)}</p>',
        f'<div class="shot whole">{whole}{mark}</div>',
    ]
    if method == "truth":
        parts.append(f'<p class="score">{width} × {height} pixels</p>')
    else:
        strong = psnr != DASH and finite(numbers.get("psnr")) == best
        shown = f"<strong>{psnr}</strong>" if strong else psnr
        ssim = decimals(numbers.get("ssim"), 3)
        parts.append(f'<p class="score">{shown} dB <span>SSIM {ssim}</span></p>')
    if "detail" in cell:
        detail = picture(cell["detail"], (side, side), f"Detail of {alt}", caption, True)
        parts.append(f'<div class="shot detail">{detail}</div>')
    else:
        parts.append('<div class="shot none"></div>')
    if "map" in cell:
        image = picture(cell["map"], cell["size"], f"Error of {alt}", caption, cell["crisp"])
        parts.append(f'<div class="shot error">{image}</div>')
    elif method == "truth":
        parts.append(_colour_bar(row["limit"]))
    else:
        parts.append('<div class="shot none"></div>')
    kind = "card truth" if method == "truth" else "card"
    return f'<div class="{kind}">{"".join(parts)}</div>'


def _colour_bar(limit):
    return (
        '<div class="scale"><p>Error<br>|estimate − truth|</p>'
        f'<span class="ramp" style="background:linear-gradient(to right, {images.gradient()})" '
        f'role="img" aria-label="Colour bar from 0 to {tick(limit)}"></span>'
        f'<span class="ends"><span>0</span><span>{tick(limit / 2)}</span>'
        f"<span>≥ {tick(limit)}</span></span></div>"
    )


def picture_rows(task, rows):
    """The test images of a task, each with all methods side by side.

    Args:
        task: one entry of `results["tasks"]`.
        rows: that task's rows from `prepare`.

    Returns:
        A `<figure>` per test image.
    """
    figures = []
    for row in rows:
        scores = {m: finite(_of_image(task, m, row).get("psnr")) for m in METHODS}
        best = max((s for s in scores.values() if s is not None), default=None)
        cards = "".join(_card(task, m, row, best) for m in _SHOWN if m in row["cells"])
        figures.append(
            f'<figure class="shots"><figcaption>{escape(row["name"])}</figcaption>'
            f'<div class="cards">{cards}</div></figure>'
        )
    return "".join(figures)


def filter_figure(title, grid, columns, text):
    """A grid of filters with its title above and what there is to say below."""
    return (
        f'<figure class="filters" style="max-width:{4.2 * columns:.1f}rem">'
        f"<figcaption><b>{escape(title)}</b></figcaption>"
        f'<img class="crisp" src="{images.uri(images.file_bytes(grid))}" '
        f'width="{grid.shape[1]}" height="{grid.shape[0]}" alt="{escape(title)}: {text}">'
        f"<p>{text}</p></figure>"
    )


def filter_panels(filters):
    """The learned filters as grids in one order, so that a place is one filter in each grid.

    Args:
        filters: title -> kernel `(height, width, channels, filters)`. May be empty.

    Returns:
        A `<div>` of `<figure>`s and a note, or an empty string.
    """
    kernels = {title: np.asarray(kernel) for title, kernel in filters.items()}
    figures, order = [], []
    for title, kernel in kernels.items():
        norms = arrays.filter_norms(kernel)
        # The equilibrium model starts from the bilevel filters, so theirs is the order of all.
        if len(order) != len(norms):
            order = np.argsort(-norms, kind="stable")
        columns = min(len(order), max(1, round((1.5 * len(order)) ** 0.5)))
        grid = images.filter_grid(kernel, order, columns)
        text = f"{len(order)} filters of {kernel.shape[0]} × {kernel.shape[1]}"
        if kernel.shape[2] > 1:
            text += f" × {kernel.shape[2]}"
        text += f", norms from {significant(norms.min(), 2)} to {significant(norms.max(), 2)}"
        figures.append(filter_figure(title, grid, columns, text))
    if not figures:
        return ""
    scale = "blue is negative, red positive"
    if all(kernel.shape[2] == 3 for kernel in kernels.values()):
        scale = "grey is zero, and a colour what it adds to the channels"
    return (
        f'<div class="filter-row">{"".join(figures)}</div><p class="note">Each filter is on its '
        f"own symmetric scale: {scale}. They are sorted by norm, and the same place is the same "
        "filter in each grid.</p>"
    )
