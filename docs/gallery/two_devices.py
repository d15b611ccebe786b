"""Two devices: the same training on any number of them

The processor is split into two devices, as if there were two GPUs, and one training step is
taken on one and on both. Each image is solved by itself, so that the weights come out the same.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

cpu = tf.config.list_physical_devices("CPU")[0]
parts = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, parts)  # before TensorFlow's first operation

photographs = datasets.load("photographs", max_side=128)["train"].images
sharp = np.stack([p[:48, :48] / 255.0 for p in photographs] * 2).astype("float32")[:12]
noisy = dk.operators.GaussianNoise(0.1)(sharp, tf.range(12, dtype=tf.int64)).numpy()


# %% [markdown]
# A function that builds the model is all that differs: it is called in the scope of the
# strategy.


# %%
def build():
    prior = dk.priors.FieldsOfExperts(filters=8, kernel_size=3)
    layer = dk.layers.Variational(dk.operators.Identity(), prior, name="bilevel")
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse", metrics=[dk.metrics.PSNR()])
    return model


def train(strategy):
    with strategy.scope():
        model = build()
    data = tf.data.Dataset.from_tensor_slices((noisy, sharp)).batch(6)
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    return history, model


alone, first = train(tf.distribute.OneDeviceStrategy("/cpu:0"))
both, second = train(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
print("PSNR on one device: ", np.round(alone["psnr"], 4))
print("PSNR on two devices:", np.round(both["psnr"], 4))

# %%
pairs = zip(first.get_weights(), second.get_weights(), strict=True)
largest = max(np.abs(a - b).max() for a, b in pairs)
print(f"largest difference of the weights: {largest:.1e}")
print("forward steps:", np.round(alone["bilevel_forward_steps"], 2), "and", end=" ")
print(np.round(both["bilevel_forward_steps"], 2))

# %%
pictures = {"Noisy": noisy[0], "One device": first(noisy[:1])[0], "Two": second(noisy[:1])[0]}
dk.plot.reconstructions(pictures, sharp[0], zoom=None).savefig("reconstructions.png")

# %% [markdown]
# Over several machines, with checkpoints and restarts: [devices and
# machines](../distribution.md).
