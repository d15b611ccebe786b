"""Plots of reconstructions, filters, potentials and residuals, by matplotlib.

matplotlib is in the extra `plot`, and imported when something is drawn. Each function returns a
`matplotlib.figure.Figure`, saved by its `savefig`, and touches neither pyplot nor its settings.
The arrays behind the figures are made by `deq_keras.plot.pictures`, without matplotlib.

>>> figure = deq_keras.plot.filters(deq_keras.presets.load("wcrr_bsd400"))
>>> figure.savefig("filters.png")  # doctest: +SKIP
"""

from deq_keras.plot import pictures
from deq_keras.plot.experts import filters, potentials
from deq_keras.plot.reconstructions import reconstructions
from deq_keras.plot.residuals import residuals

__all__ = ["filters", "pictures", "potentials", "reconstructions", "residuals"]
