"""Linear operators `K` of the measurement `y = K u + noise`, and the noise."""

from deq_keras.operators.base import LinearMap, LinearOperator
from deq_keras.operators.blur import Blur
from deq_keras.operators.compose import Compose
from deq_keras.operators.downsample import Downsample
from deq_keras.operators.fourier_mask import FourierMask
from deq_keras.operators.identity import Identity
from deq_keras.operators.kernels import (
    box_kernel,
    diagonal_kernel,
    gaussian_kernel,
    motion_kernel,
)
from deq_keras.operators.mask import Mask
from deq_keras.operators.mask_patterns import band_mask, centre_mask, random_mask
from deq_keras.operators.named_blurs import BoxBlur, DiagonalBlur, GaussianBlur, MotionBlur
from deq_keras.operators.noise import GaussianNoise, PoissonNoise, gaussian_noise, poisson_noise
from deq_keras.operators.radon import Radon
from deq_keras.operators.sampling_masks import cartesian_mask, radial_mask
from deq_keras.operators.stack import Stack
from deq_keras.operators.sums import Scaled, Sum

__all__ = [
    "Blur",
    "BoxBlur",
    "Compose",
    "DiagonalBlur",
    "Downsample",
    "FourierMask",
    "GaussianBlur",
    "GaussianNoise",
    "Identity",
    "LinearMap",
    "LinearOperator",
    "Mask",
    "MotionBlur",
    "PoissonNoise",
    "Radon",
    "Scaled",
    "Stack",
    "Sum",
    "band_mask",
    "box_kernel",
    "cartesian_mask",
    "centre_mask",
    "diagonal_kernel",
    "gaussian_kernel",
    "gaussian_noise",
    "motion_kernel",
    "poisson_noise",
    "radial_mask",
    "random_mask",
]
