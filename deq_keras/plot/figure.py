"""Figures: the one place that imports matplotlib, and only when something is drawn."""


def new(width, height):
    """An empty `matplotlib.figure.Figure` of a size in inches, of no window and no pyplot.

    Raises:
        ImportError: If matplotlib is missing, with the line that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"deq_keras.plot draws with matplotlib, which cannot be imported: {error}. Install it "
            'with `pip install "deq_keras[plot]"`, or `pip install matplotlib`.'
        ) from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def title(axes, text, size=8):
    """A title that is taken literally: a file name with a $ in it is no formula."""
    axes.set_title(text, fontsize=size, parse_math=False)


def label(axes, x, y):
    """Names of both axes, with units, and small numbers at their ticks."""
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
