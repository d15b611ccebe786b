"""Sheet of one image of an evaluation: measurement, reconstruction, truth and error in a row."""

import numpy as np
from matplotlib.figure import Figure

from experiments.report import images

_INCHES = 3.2  # of a panel's longer side


def sheet(name, panels, path):
    """Draws an image of an evaluation into a PNG file.

    Args:
        name: The image's name, a heading.
        panels: Pairs of a title and a picture `(height, width, channels)`; the truth is the last.
            The error map is that of the one before it.
        path: The file.
    """
    pictures = [images.as_image(picture) for _, picture in panels]
    error = images.error(pictures[-2], pictures[-1])
    height, width = error.shape
    inches = _INCHES / max(height, width)
    size = ((len(panels) + 1.25) * width * inches + 0.4, height * inches + 0.7)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(name, fontsize=9, parse_math=False)  # a name with a $ is no formula
    axes = figure.subplots(1, len(panels) + 1)
    for axis, (title, _), picture in zip(axes, panels, pictures, strict=False):
        shown = picture[..., 0] if picture.shape[-1] == 1 else picture
        axis.imshow(shown, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axis.set_title(title, fontsize=8, parse_math=False)
    limit = max(float(np.quantile(error, 0.995)), 1e-6)
    drawn = axes[-1].imshow(
        error, cmap=images.ERROR_COLOURS, vmin=0.0, vmax=limit, interpolation="nearest"
    )
    axes[-1].set_title("Error |estimate − truth|", fontsize=8)
    figure.colorbar(drawn, ax=axes[-1], shrink=0.8).ax.tick_params(labelsize=6)
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path)


def filter_picture(kernel, enlarge=8):
    """The filters of a kernel, the greatest first, as the bytes of a PNG file."""
    norms = images.filter_norms(kernel)
    order = np.argsort(-norms, kind="stable")
    columns = min(len(order), max(1, round((1.5 * len(order)) ** 0.5)))
    grid = images.filter_grid(kernel, order, columns)
    return images.file_bytes(grid.repeat(enlarge, axis=0).repeat(enlarge, axis=1))
