"""Trained priors that come with the package, each with a card that says how it was made.

>>> deq_keras.presets.names()
('foe_bsd400', 'untied_foe_bsd400', 'wcrr_bsd400')
>>> deq_keras.presets.card("wcrr_bsd400")["parameters"]
13828
>>> prior = deq_keras.presets.load("wcrr_bsd400")
"""

from deq_keras.presets import pytorch
from deq_keras.presets.folder import card, load, names, save

__all__ = ["card", "load", "names", "pytorch", "save"]
