"""Keras layers: cells, the equilibrium of a cell, and the minimiser of an energy."""

from deq_keras.layers.cells import GradientStep
from deq_keras.layers.equilibrium import Equilibrium
from deq_keras.layers.normalized_convolution import NormalizedConv2D
from deq_keras.layers.variational import Variational

__all__ = ["Equilibrium", "GradientStep", "NormalizedConv2D", "Variational"]
