"""Priors and denoisers from the weights that their authors published for PyTorch.

Each function takes a state dictionary as a mapping from names to arrays, from a copy of your own;
`python -m experiments.convert` reads one from a file. Nothing of PyTorch is needed.
"""

from deq_keras.presets.networks import drunet, tdv
from deq_keras.presets.ridge import crr, wcrr

__all__ = ["crr", "drunet", "tdv", "wcrr"]
