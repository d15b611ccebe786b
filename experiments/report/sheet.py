"""Sheet of one image of an evaluation: measurement, reconstruction and truth in a row."""

import numpy as np

from deq_keras import plot
from experiments.report import images


def sheet(name, panels, path):
    """Draws an image of an evaluation into a PNG file.

    Args:
        name: The image's name, a heading.
        panels: Pairs of a title and a picture `(height, width, channels)`; the truth is the last.
        path: The file.
    """
    *others, (_, truth) = panels
    plot.reconstructions(dict(others), truth, heading=name).savefig(path)


def filter_picture(kernel, enlarge=8):
    """The filters of a kernel, the greatest first, as the bytes of a PNG file."""
    norms = plot.pictures.filter_norms(kernel)
    order = np.argsort(-norms, kind="stable")
    columns = min(len(order), max(1, round((1.5 * len(order)) ** 0.5)))
    grid = images.filter_grid(kernel, order, columns)
    return images.file_bytes(grid.repeat(enlarge, axis=0).repeat(enlarge, axis=1))
