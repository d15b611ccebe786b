"""Inpainting: half of the pixels, each image with a mask of its own

Two photographs of which half of the pixels are known, with noise. The masks come as data with
the measurements, so one layer serves all of them.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photographs = datasets.load("photographs", max_side=128)["test"].images[:2]
truth = tf.stack([tf.constant(p[:80, :128] / 255.0, tf.float32) for p in photographs])
masks = tf.constant(dk.operators.random_mask(truth.shape, keep=0.5))
noise = dk.operators.GaussianNoise(0.05)
measured = masks * noise(truth, tf.constant([0, 1], tf.int64))

# %%
prior = dk.presets.load("foe_bsd400")
layer = dk.layers.Variational(dk.operators.Mask(), prior, weight=0.03)
solution = layer.solve((measured, masks))
print("evaluations:", solution.steps.numpy(), "converged:", solution.converged.numpy())
print("PSNR in dB:", dk.metrics.psnr(truth, solution.value).numpy().round(2))

# %% [markdown]
# An image's answer does not depend on its companions. Alone it comes out the same, but for the
# rounding of float32, which a solve of a hundred steps carries along.

# %%
alone = layer.solve((measured[:1], masks[:1])).value
print("largest difference:", float(tf.reduce_max(tf.abs(alone - solution.value[:1]))))

# %%
for number in range(2):
    pictures = {"Measured": measured[number], "Reconstructed": solution.value[number]}
    figure = dk.plot.reconstructions(pictures, truth[number])
    figure.savefig(f"photograph-{number + 1}.png")
