"""Reconstructions side by side, with a detail and their errors."""

import numpy as np

from deq_keras.plot import figure as figures
from deq_keras.plot import pictures as arrays

_INCHES, _WIDEST = 2.4, 9.0  # of a panel's longer side, and of all in a row
_MARK = "#ffb000"


def reconstructions(pictures, truth=None, zoom="auto", errors=True, heading=""):
    """Pictures side by side, the same detail of each below, and below that their errors.

    The error is `|picture - truth|`, averaged over the channels. All errors are on one scale, that
    of the last picture: where pixels are missing, a measurement would be too large for it. A
    picture of another size than the truth has neither detail nor error.

    Args:
        pictures: Dictionary from a title to an array on [0, 1], `(height, width)` or
            `(height, width, channels)`, or a tensor of such a shape.
        truth: The true image, which is shown last, or `None`: then no errors are shown. With it
            the titles say the PSNR in dB.
        zoom: The detail: `"auto"` (the square where the pictures differ and the truth has
            structure), `None`, or `(top, left, side)` in pixels.
        errors: Whether errors are shown, if there is a truth.
        heading: A line above all, such as the name of the image; taken literally.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there are no pictures, or one is no picture.

    Example:

    >>> noisy = np.random.default_rng(0).random((32, 48))
    >>> figure = deq_keras.plot.reconstructions({"noisy": noisy}, truth=0.5 * np.ones((32, 48)))
    >>> len(figure.axes)
    6
    """
    if not pictures:
        raise ValueError("Expected at least one picture. Received none.")
    shown, found = {}, {}
    last = None if truth is None else arrays.as_picture(truth)
    for title, array in pictures.items():
        picture = arrays.as_picture(array)
        if last is not None and picture.shape == last.shape:
            title = f"{title}\n{_psnr(array, truth)} dB"
            found[title] = arrays.error(picture, last)
        shown[title] = picture
    if last is not None:
        shown["Truth"] = last
    size = list(shown.values())[-1].shape
    box = _detail(zoom, size, [p for p in shown.values() if p.shape == size])
    rows = [shown]
    if box is not None:
        top, left, side = box
        detail = slice(top, top + side), slice(left, left + side)
        rows.append({t: p[detail] for t, p in shown.items() if p.shape[:2] == size[:2]})
    if errors and found:
        rows.append(found)
    return _draw(rows, size, box, bool(errors and found), heading)


def _psnr(picture, truth):
    difference = np.asarray(picture, np.float64) - np.asarray(truth, np.float64)
    squares = np.mean(difference**2)  # not of what is cut off for the eye
    return f"{-10 * np.log10(squares):.2f}" if squares > 0 else "∞"


def _detail(zoom, size, alike):
    if zoom is None:
        return None
    if isinstance(zoom, str) and zoom == "auto":
        return arrays.choose_detail(alike[-1], alike[:-1])
    if isinstance(zoom, str) or len(zoom) != 3:
        raise ValueError(
            f"Expected `zoom` to be 'auto', None or (top, left, side). Received zoom={zoom!r}."
        )
    top, left, side = (int(number) for number in zoom)
    if not (0 <= top <= size[0] - side and 0 <= left <= size[1] - side and side > 0):
        raise ValueError(
            f"Expected the detail (top, left, side) to lie in a picture of {size[0]} x {size[1]} "
            f"pixels. Received zoom={zoom!r}."
        )
    return top, left, side


def _draw(rows, size, box, errors, heading):
    columns = len(rows[0])
    inches = min(_INCHES, _WIDEST / columns)
    height, width = (inches * side / max(size[:2]) for side in size[:2])
    heights = [height] + ([width] if box else []) + ([height] if errors else [])
    total = sum(heights) + 0.45 + (0.25 if heading else 0.0)
    figure = figures.new(columns * width + 0.1, total)
    if heading:
        figure.suptitle(heading, fontsize=9, parse_math=False)
    axes = figure.subplots(
        len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    limit = 1.0
    if errors:
        limit = max(float(np.quantile(list(rows[-1].values())[-1], 0.995)), 1e-6)
    for number, row in enumerate(rows):
        for axis, title in zip(axes[number], rows[0], strict=True):
            axis.set_axis_off()
            if title not in row:
                continue
            if errors and number == len(rows) - 1:
                drawn = axis.imshow(row[title], cmap="magma", vmin=0.0, vmax=limit)
                continue
            grey = row[title].shape[-1] == 1
            picture = row[title][..., 0] if grey else row[title]
            axis.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            if number == 0:
                figures.title(axis, title)
                if box is not None and picture.shape[:2] == size[:2]:
                    _mark(axis, box)
    if errors:
        # Below the truth, which has no error.
        bar = figure.colorbar(drawn, cax=axes[-1][-1].inset_axes([0.02, 0.05, 0.08, 0.9]))
        bar.ax.tick_params(labelsize=6)
        bar.set_label("|error|", fontsize=7)
    return figure


def _mark(axis, box):
    top, left, side = box
    edges = [left - 0.5, left + side - 0.5], [top - 0.5, top + side - 0.5]
    (west, east), (north, south) = edges
    axis.plot(
        [west, east, east, west, west], [north, north, south, south, north], _MARK, linewidth=1.0
    )
