"""A cell of your own: any Keras model as an equilibrium

A small network becomes a deep equilibrium model: its output is the fixed point, memory does not
grow with the number of iterations, and a penalty keeps it a contraction.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

keras.utils.set_random_seed(0)
photographs = datasets.load("photographs", max_side=128)["train"].images
sharp = np.stack([p[:64, :64] / 255.0 for p in photographs] * 3).astype("float32")
noisy = dk.operators.GaussianNoise(0.1)(sharp, tf.range(len(sharp), dtype=tf.int64))

# %%
z, y = keras.Input((None, None, 1)), keras.Input((None, None, 1))
both = keras.layers.Concatenate()([z, y])
hidden = dk.layers.Conv2D(16, 5, padding="same", activation="tanh")(both)
change = dk.layers.Conv2D(1, 5, padding="same", kernel_initializer="zeros")(hidden)
cell = keras.Model([z, y], y + change)

layer = dk.layers.Equilibrium(cell, jacobian_regularizer="jacobian_frobenius", name="equilibrium")
model = keras.Sequential([keras.Input((None, None, 1)), layer])
model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=[dk.metrics.PSNR()])
history = model.fit(noisy, sharp, batch_size=7, epochs=20, verbose=0).history
for epoch in (0, 4, 9, 19):
    steps, psnr = history["equilibrium_forward_steps"][epoch], history["psnr"][epoch]
    share = history["equilibrium_converged"][epoch]
    print(f"epoch {epoch + 1:2}: {psnr:.2f} dB, {steps:.1f} steps, {share:.0%} converged")

# %% [markdown]
# What was found out about the cell by trying it, when the layer was built:

# %%
print(layer.structure)
model.summary(expand_nested=True)

# %%
truth = datasets.load("photographs", max_side=128)["test"].images[0][None] / 255.0
measured = dk.operators.GaussianNoise(0.1)(truth.astype("float32"), tf.constant([99], tf.int64))
solution = layer.solve(measured, return_history=True)
dk.plot.residuals(solution, tolerance=1e-5).savefig("residuals.png")
pictures = {"Noisy": measured[0], "Equilibrium": solution.value[0]}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")
