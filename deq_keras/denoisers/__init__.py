"""Denoisers: Keras models from noisy images to clean ones, for energies and plug-and-play."""

from deq_keras.denoisers.denoiser_at_noise_level import DenoiserAtNoiseLevel
from deq_keras.denoisers.dncnn import averaged_dncnn, dncnn
from deq_keras.denoisers.drunet import DRUNet
from deq_keras.denoisers.unet import UNet

__all__ = ["DRUNet", "DenoiserAtNoiseLevel", "UNet", "averaged_dncnn", "dncnn"]
