"""Trained priors that come with the package, each with a card that says how it was made.

`unet_bsd400` is a denoiser as the prior `DenoiserEnergy`, of which it is the `denoiser`: for
plug-and-play methods, or to start a training from. Its energy was not trained.

>>> deq_keras.presets.names()
('foe48_bsd400', 'foe_bsd400', 'unet_bsd400', 'untied_foe_bsd400', 'wcrr_bsd400')
>>> deq_keras.presets.card("wcrr_bsd400")["parameters"]
13828
>>> prior = deq_keras.presets.load("wcrr_bsd400")
>>> denoiser = deq_keras.presets.load("unet_bsd400").denoiser
>>> denoiser(tf.random.uniform((1, 48, 64, 1))).shape
TensorShape([1, 48, 64, 1])
"""

from deq_keras.presets import pytorch
from deq_keras.presets.folder import card, load, names, save

__all__ = ["card", "load", "names", "pytorch", "save"]
