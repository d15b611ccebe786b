"""Serving: a model without this package

An exported model is a SavedModel: TensorFlow alone runs it, on images of any size. Here a fresh
process that cannot import `deq_keras` loads it, and answers as the model does.
"""

# %%
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

prior, weight = dk.presets.load("foe_bsd400"), dk.presets.card("foe_bsd400")["weight"]
layer = dk.layers.Variational(dk.operators.Identity(), prior, weight=weight)
model = keras.Sequential([keras.Input((None, None, 1)), layer])
model.export("denoiser", verbose=False)

# %%
photograph = datasets.load("photographs", max_side=128)["test"].images[0]
truth = (photograph[None] / 255.0).astype("float32")
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64)).numpy()
np.save("noisy.npy", noisy)

# %% [markdown]
# The client: a program of eight lines, in a process in which the package is not to be had.

# %%
client = """
import sys
sys.modules["deq_keras"] = sys.modules["keras"] = None  # whatever imports them fails
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load("denoiser").signatures["serving_default"]
(name,) = serve.structured_input_signature[1]
(restored,) = serve(**{name: tf.constant(np.load("noisy.npy"))}).values()
np.save("restored.npy", restored)
"""
subprocess.run([sys.executable, "-c", client], check=True, capture_output=True)
restored = np.load("restored.npy")
print("largest difference to the model:", float(np.abs(restored - model(noisy)).max()))

# %%
pictures = {"Noisy": noisy[0], "Served": restored[0]}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")

# %% [markdown]
# `experiments.export` writes more: signatures for bytes and files, and `diagnose`, which
# returns steps, residuals and bounds with each image. See [serving](../serving.md).
