"""Keras layers: cells, the equilibrium of a cell, and the minimiser of an energy."""

from deq_keras.layers.averaged import Averaged
from deq_keras.layers.cell import Cell, LayerCell
from deq_keras.layers.convolutions import Conv2D, Conv2DTranspose
from deq_keras.layers.corrected_equilibrium import CorrectedEquilibrium
from deq_keras.layers.directional import jvp
from deq_keras.layers.equilibrium import Equilibrium
from deq_keras.layers.gradient_step import GradientStep
from deq_keras.layers.normalized_convolution import NormalizedConv2D
from deq_keras.layers.observation import Observation, Observed, observe
from deq_keras.layers.one_step_denoiser import OneStepDenoiser
from deq_keras.layers.proximal_step import ProximalStep
from deq_keras.layers.variational import Variational

__all__ = [
    "Averaged",
    "Cell",
    "Conv2D",
    "Conv2DTranspose",
    "CorrectedEquilibrium",
    "Equilibrium",
    "GradientStep",
    "LayerCell",
    "NormalizedConv2D",
    "Observation",
    "Observed",
    "OneStepDenoiser",
    "ProximalStep",
    "Variational",
    "jvp",
    "observe",
]
