"""Curves as inline SVG that follows the page's light or dark theme."""

import io
import math
import re
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from experiments.methods import CURVES
from experiments.report.text import escape, finite, tick

# Stand-ins that are replaced by what the style sheet defines, so that a theme can change them.
_INK, _GRID = "#010203", "#040506"
_COLOURS = {
    method: f"#0a0b{number:02x}" for number, method in enumerate([*CURVES, "measurement"], 1)
}
NOISY = 120  # a training curve with more points is drawn thin, and its running median thick
_TICKS = 7  # more labels run into each other
_POINTS = 1200  # more do not show, and make the page large


class Line(NamedTuple):
    """A line of a plot.

    Attributes:
        x: Numbers, or None to count from 1. None and NaN are left out, here and in `y`.
        y: Numbers.
        method: Whose colour it has: a key of `CURVES`, or `"measurement"`.
        dashes: In units of the line's width; empty for a full line.
        marker: As matplotlib calls it; empty for none.
        at: Where the marker is: at the `"end"`, at `"every"` point, or `"alone"`, which is at
            every point, hollow, and without a line.
    """

    x: object
    y: object
    method: str
    dashes: tuple[float, ...] = ()
    marker: str = ""
    at: str = "end"


def _series(x, y, positive=False):
    """The points that can be drawn, as two float arrays."""
    y = [finite(v) for v in (y if y is not None else [])]
    x = [finite(v) for v in x] if x is not None else range(1, len(y) + 1)
    points = [
        (a, b)
        for a, b in zip(x, y, strict=False)
        if a is not None and b is not None and not (positive and b <= 0)
    ]
    return np.array(points, np.float64).reshape(-1, 2).T


def _thin(x, y):
    """At most about `_POINTS` of the points, among them the last."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
    return x[keep], y[keep]


def _smooth(y):
    """The running median of a long noisy curve, in shorter windows at its ends."""
    half = len(y) // 25
    padded = np.pad(y, half, constant_values=math.nan)
    return np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=-1)


def _log_ticks(low, high):
    """Ticks of a logarithmic axis from `low` to `high`: few, but never fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [m * 10.0**p for p in powers for m in mantissas]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // 7)]
    return [t for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]


def _logarithmic(axis, values):
    values = values[values > 0]
    low, high = values.min(), values.max()
    room = max((high / low) ** 0.05, 1.01)
    low, high = low / room, high * room
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    ticks = _log_ticks(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    powers = min(ticks) < 1e-3 or max(ticks) >= 1e4
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, powers)))
    axis.set_minor_locator(NullLocator())


def _svg(figure, key, title):
    """The figure as an `<svg>` element whose ids begin with `key`."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": key}
    buffer = io.StringIO()
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.S)  # would style the whole page
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", text)
    text = text.replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    for method, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{method})")
    view = re.search(r'viewBox="[^"]*"', text).group()
    head = f'<svg {view} role="img" aria-label="{escape(title)}"'
    head += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + text[text.index(">") + 1 :].strip()


# Markers of a legend, as paths about the middle of its line.
_MARKS = {
    "o": "M22 4a4 4 0 1 1-8 0a4 4 0 1 1 8 0z",
    "D": "M18-.5L22.5 4L18 8.5L13.5 4z",
    "s": "M14.5.5H21.5V7.5H14.5z",
    "^": "M18-.5L22.5 8H13.5z",
    "v": "M18 8.5L13.5 0H22.5z",
}


def legend(entries):
    """What lines look like, in words: the legend of one or more plots.

    Args:
        entries: pairs of a label and a `Line`, whose points do not matter.
    """
    items = []
    for text, line in entries:
        dashes = " ".join(str(2 * d) for d in line.dashes)
        dashes = f' stroke-dasharray="{dashes}"' if dashes else ""
        colour, hollow = f"var(--{line.method})", line.at == "alone"
        parts = ""
        if not hollow:
            parts += f'<path d="M0 4H36" fill="none" stroke="{colour}" stroke-width="2.5"{dashes}/>'
        if line.marker:
            parts += f'<path d="{_MARKS[line.marker]}" fill="{"none" if hollow else colour}" '
            parts += f'stroke="{colour}" stroke-width="1.2"/>'
        items.append(
            f'<span><svg viewBox="0 0 36 8" aria-hidden="true">{parts}</svg>{escape(text)}</span>'
        )
    return f'<div class="legend">{"".join(items)}</div>'


def _draw_line(axes, line, x, y, noisy):
    colour = _COLOURS[line.method]
    style = {"color": colour, "linewidth": 1.8, "dash_capstyle": "butt"}
    style["linestyle"] = (0, line.dashes) if line.dashes else "-"
    if noisy:
        axes.plot(*_thin(x, y), color=colour, linewidth=0.6, alpha=0.3)
        y = _smooth(y)
    if line.at == "alone":
        axes.plot(x, y, line.marker, color=colour, markersize=5.5, fillstyle="none")
        return
    axes.plot(*_thin(x, y), **style)
    ends = slice(-1, None) if line.at == "end" else slice(None)
    axes.plot(x[ends], y[ends], line.marker or "None", color=colour, markersize=4.5)


def plot(key, title, curves, x_label, y_label, *, log_y=False, fork=None):
    """One plot of a curve per method: `draw` with the dashes and the marker of each method.

    Args:
        key: what makes the ids of this plot unique in the page.
        title: what a reader who cannot see it is told.
        curves: method -> `(x, y)`; `x=None` counts from 1. None and NaN are left out.
        x_label: with its unit.
        y_label: with its unit.
        log_y: whether the vertical axis is logarithmic. The horizontal one is where the lengths
            of the curves differ much.
        fork: where to mark that the bilevel model goes on as two.

    Returns:
        An `<svg>` element, or an empty string if there is nothing to draw.
    """
    lines = [
        Line(x, y, method, CURVES[method].dashes, CURVES[method].marker)
        for method, (x, y) in curves.items()
    ]
    return draw(key, title, lines, x_label, y_label, log_y=log_y, fork=fork)


def draw(
    key,
    title,
    lines,
    x_label,
    y_label,
    *,
    log_x=None,
    log_y=False,
    whole_x=False,
    x_ticks=None,
    fork=None,
    smooth=False,
    y_limits=None,
):
    """One plot of some lines.

    Args:
        key: what makes the ids of this plot unique in the page.
        title: what a reader who cannot see it is told.
        lines: `Line`s.
        x_label: with its unit.
        y_label: with its unit.
        log_x: whether the horizontal axis is logarithmic; None if the ends of the lines decide.
        log_y: whether the vertical axis is logarithmic: what is not positive is left out then.
        whole_x: whether the horizontal axis counts.
        x_ticks: where its ticks are, if they are few; None to choose them.
        fork: where to mark that the bilevel model goes on as two.
        smooth: whether a long line is drawn thin, and its running median thick; with a fork it is.
        y_limits: the ends of the vertical axis; None to choose them.

    Returns:
        An `<svg>` element, or an empty string if there is nothing to draw.
    """
    drawn, smooth = [], smooth or fork is not None
    for line in lines:
        x, y = _series(line.x, line.y, positive=log_y)
        if len(x):
            drawn.append((line, x, y))
    if not drawn:
        return ""
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for line, x, y in drawn:
        _draw_line(axes, line, x, y, noisy=smooth and len(y) > NOISY)
    every_x, every_y = (np.concatenate([v[i] for v in drawn]) for i in (1, 2))
    for axis in (axes.xaxis, axes.yaxis):
        whole = whole_x and axis is axes.xaxis
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    if log_y:
        _logarithmic(axes.yaxis, every_y)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    if log_x is None:
        ends = [x.max() for _, x, _ in drawn]
        log_x = fork is None and min(ends) > 0 and max(ends) > 8 * min(ends)
    if log_x:
        _logarithmic(axes.xaxis, every_x)
    if x_ticks and len(x_ticks) <= _TICKS:
        axes.xaxis.set_major_locator(FixedLocator(x_ticks))
    if fork is not None:
        axes.axvline(fork, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.6)
        axes.annotate(
            "fork",
            (fork, 1.0),
            (-4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            color=_INK,
            fontsize=9,
        )
    axes.set_xlabel(x_label, color=_INK, fontsize=10)
    axes.set_ylabel(y_label, color=_INK, fontsize=10)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    return _svg(figure, key, title)
