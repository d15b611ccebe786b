"""Priors: energies of images, their gradients, and what is certified about them."""

from deq_keras.priors import initializers, potentials
from deq_keras.priors.affine_experts import AffineExperts, UntiedAffineExperts
from deq_keras.priors.at_noise_level import AtNoiseLevel
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.denoiser_energy import DenoiserEnergy
from deq_keras.priors.difference_of_convex import DifferenceOfConvex
from deq_keras.priors.fields_of_experts import FieldsOfExperts, UntiedFieldsOfExperts
from deq_keras.priors.input_convex_network import InputConvexNetwork
from deq_keras.priors.learned_gradient import LearnedGradient
from deq_keras.priors.multivariate_experts import MultivariateExperts
from deq_keras.priors.rescaled import Rescaled
from deq_keras.priors.ridge_regularizer import RidgeRegularizer
from deq_keras.priors.spline_ridge_regularizer import SplineRidgeRegularizer
from deq_keras.priors.total_deep_variation import TotalDeepVariation
from deq_keras.priors.total_variation import TotalVariation

__all__ = [
    "AffineExperts",
    "AtNoiseLevel",
    "BoundPrior",
    "DenoiserEnergy",
    "DifferenceOfConvex",
    "FieldsOfExperts",
    "InputConvexNetwork",
    "LearnedGradient",
    "MultivariateExperts",
    "Prior",
    "Rescaled",
    "RidgeRegularizer",
    "SplineRidgeRegularizer",
    "TotalDeepVariation",
    "TotalVariation",
    "UntiedAffineExperts",
    "UntiedFieldsOfExperts",
    "initializers",
    "potentials",
]
