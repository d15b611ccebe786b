"""Convolutions with exact adjoints and certified norms: pure TensorFlow functions."""

from deq_keras.convolution.composition import compose
from deq_keras.convolution.correlation import correlate, correlate_adjoint, filter_spectrum
from deq_keras.convolution.norm_bounds import norm_bound
from deq_keras.convolution.norms_at_size import (
    circular_norm,
    composition_norm_bound,
    power_iteration_norm,
)
from deq_keras.convolution.padding import PADDINGS, check_padding, pad, pad_adjoint, same_sizes

__all__ = [
    "PADDINGS",
    "check_padding",
    "circular_norm",
    "compose",
    "composition_norm_bound",
    "correlate",
    "correlate_adjoint",
    "filter_spectrum",
    "norm_bound",
    "pad",
    "pad_adjoint",
    "power_iteration_norm",
    "same_sizes",
]
