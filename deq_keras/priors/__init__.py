"""Priors: energies of images, their gradients, and what is certified about them."""

from deq_keras.priors import initializers, potentials
from deq_keras.priors.affine_experts import AffineExperts, UntiedAffineExperts
from deq_keras.priors.at_noise_level import AtNoiseLevel
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.fields_of_experts import FieldsOfExperts, UntiedFieldsOfExperts
from deq_keras.priors.learned_gradient import LearnedGradient
from deq_keras.priors.rescaled import Rescaled
from deq_keras.priors.ridge_regularizer import RidgeRegularizer
from deq_keras.priors.total_variation import TotalVariation

__all__ = [
    "AffineExperts",
    "AtNoiseLevel",
    "BoundPrior",
    "FieldsOfExperts",
    "LearnedGradient",
    "Prior",
    "Rescaled",
    "RidgeRegularizer",
    "TotalVariation",
    "UntiedAffineExperts",
    "UntiedFieldsOfExperts",
    "initializers",
    "potentials",
]
