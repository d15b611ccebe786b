"""Checks for operators, priors, fidelities, cells and layers of your own.

Each raises an `AssertionError` that says which numbers differ and what the likely cause is, so
one line in a test of yours is enough.
"""

from deq_keras.testing.cell import CellReport, cell_test
from deq_keras.testing.dot import dot_test
from deq_keras.testing.fidelity import FidelityReport, fidelity_test
from deq_keras.testing.gradient import gradient_test
from deq_keras.testing.layer import layer_test
from deq_keras.testing.prior import PriorReport, prior_test

__all__ = [
    "CellReport",
    "FidelityReport",
    "PriorReport",
    "cell_test",
    "dot_test",
    "fidelity_test",
    "gradient_test",
    "layer_test",
    "prior_test",
]
