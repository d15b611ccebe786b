"""Compressed sensing in Fourier space, as in magnetic resonance imaging

A quarter of the frequencies of an image is measured, along spokes, with noise. Measurements are
complex and images real; the adjoint and the certified norm take care of that.
"""

# %%
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=160)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
size = truth.shape[1:3]
mask = dk.operators.radial_mask(size, spokes=40)
print(f"measured: {mask.mean():.0%} of the frequencies")
scanner = dk.operators.FourierMask(mask)
k_space = dk.operators.GaussianNoise(0.02)(scanner(truth), tf.constant([0], tf.int64))
print("measurement:", k_space.dtype.name, tuple(k_space.shape))

# %% [markdown]
# Without a prior the frequencies that are missing are zeros. With one they are filled in.

# %%
pictures = {"Zero-filled": scanner.adjoint(k_space)}
priors = {
    "Total variation": (dk.priors.TotalVariation(), 0.01),
    "Fields of experts": (dk.presets.load("foe_bsd400"), 0.01),
}
for name, (prior, weight) in priors.items():
    solution = dk.layers.Variational(scanner, prior, weight=weight).solve(k_space)
    print(f"{name:18} {int(solution.steps[0])} steps", solution.converged.numpy())
    pictures[name] = solution.value
figure = dk.plot.reconstructions({k: v[0] for k, v in pictures.items()}, truth[0])
figure.savefig("reconstructions.png")

# %% [markdown]
# Which frequencies were measured, with frequency zero in the middle:

# %%
dk.plot.reconstructions({"Mask": np.fft.fftshift(mask)}, zoom=None).savefig("mask.png")
