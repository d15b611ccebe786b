"""Plug-and-play: a denoiser as the prior of another problem

A network that is a contraction by construction is trained to denoise, and then put in the place
of a proximal map for deconvolution, which it was not trained for. The iteration converges,
certainly.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

keras.utils.set_random_seed(0)
images = datasets.load("photographs", max_side=128)
sharp = np.stack([p[:64, :64] / 255.0 for p in images["train"].images] * 3).astype("float32")
noise = dk.operators.GaussianNoise(0.05)
noisy = noise(sharp, tf.range(len(sharp), dtype=tf.int64))

# %% [markdown]
# The bounds 0.99 and 1 on the norms of the layers are certified, whatever is learned.

# %%
denoiser = keras.Sequential(
    [
        keras.Input((None, None, 1)),
        dk.layers.NormalizedConv2D(16, 5, norm=1.0, activation="relu"),
        dk.layers.NormalizedConv2D(1, 5, norm=0.99),
    ]
)
denoiser.compile(keras.optimizers.Adam(5e-3), "mse", metrics=[dk.metrics.PSNR()])
history = denoiser.fit(noisy, sharp, batch_size=7, epochs=60, verbose=0).history
print(f"denoising: {history['psnr'][0]:.2f} dB at first, {history['psnr'][-1]:.2f} dB at last")

# %%
blur = dk.operators.GaussianBlur(kernel_size=9, stddev=1.6)
cell = dk.layers.ProximalStep(blur, denoiser)
layer = dk.layers.Equilibrium(cell)
truth = (images["test"].images[0][None] / 255.0).astype("float32")
measured = dk.operators.GaussianNoise(0.02)(blur(truth), tf.constant([0], tf.int64))
solution = layer.solve(measured, return_history=True)
print("steps:", solution.steps.numpy(), "converged:", solution.converged.numpy())
bound = layer.error_bound(measured, solution.value)
print(f"distance to the fixed point: at most {float(bound.value[0]):.1e}", bound.certified.numpy())

# %%
pictures = {"Blurred": measured[0], "Plug-and-play": solution.value[0]}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")
dk.plot.residuals(solution, tolerance=1e-5).savefig("residuals.png")
