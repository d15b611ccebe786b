"""Deconvolution: bilevel learning in a minute

Fields of experts are trained to sharpen blurred photographs, end to end: the loss is that of
the minimiser, and its derivative passes through the solution by the implicit function theorem.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

keras.utils.set_random_seed(0)
images = datasets.load("photographs", max_side=192)
blur = dk.operators.GaussianBlur(kernel_size=9, stddev=1.6)
noise = dk.operators.GaussianNoise(0.02)


def patches(photographs, count, side=48):
    """Random squares of photographs, on [0, 1]."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        picture = photographs[number % len(photographs)]
        top, left = (rng.integers(0, size - side + 1) for size in picture.shape[:2])
        found.append(picture[top : top + side, left : left + side] / 255.0)
    return tf.constant(np.stack(found), tf.float32)


sharp = patches(images["train"].images, 64)
blurred = noise(blur(sharp), tf.range(64, dtype=tf.int64))

# %% [markdown]
# The adjoint of an operator of your own is worth a test; this one passes it.

# %%
dk.testing.dot_test(blur, shape=(2, 33, 48, 1))
prior = dk.priors.FieldsOfExperts(filters=12, kernel_size=5, max_sharpness=2000.0)
layer = dk.layers.Variational(blur, prior, weight=0.002, solver=dk.solvers.LBFGS(tolerance=1e-3))
model = keras.Sequential([keras.Input((None, None, 1)), layer])
model.compile(keras.optimizers.Adam(0.03), "mse", metrics=[dk.metrics.PSNR()])
history = model.fit(blurred, sharp, batch_size=8, epochs=8, verbose=0).history
for key in ("psnr", "variational_forward_steps", "variational_converged"):
    print(f"{key:26}", np.round(history[key], 2))
print("learned weight:", float(tf.exp(layer.cell.log_weight)))

# %%
truth = tf.constant(images["test"].images[0][None] / 255.0, tf.float32)
measured = noise(blur(truth), tf.constant([1000], tf.int64))
tv = dk.layers.Variational(blur, dk.priors.TotalVariation(), weight=0.001)
pictures = {"Blurred": measured, "Total variation": tv(measured), "Bilevel": layer(measured)}
figure = dk.plot.reconstructions({k: v[0] for k, v in pictures.items()}, truth[0])
figure.savefig("reconstructions.png")

# %% [markdown]
# The filters that were learned, the greatest first:

# %%
dk.plot.filters(prior).savefig("filters.png")
