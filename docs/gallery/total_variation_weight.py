"""Learning the weight of total variation from one example

The oldest bilevel problem: which weight makes the denoised image most like the true one? The
derivative of the loss by the weight, the hypergradient, is that of a call.
"""

# %%
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=96)["train"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64))
layer = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation(), weight=0.04)


@tf.function
def loss_and_slope(y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((layer(y) - truth) ** 2)
    return loss, tape.gradient(loss, layer.cell.log_weight)


layer.build(noisy.shape)

# %% [markdown]
# The derivative is exact for the solution: it agrees with a difference of two losses.

# %%
loss, slope = loss_and_slope(noisy)
start, step = layer.cell.log_weight.numpy(), 1e-2
losses = []
for shift in (step, -step):
    layer.cell.log_weight.assign(start + shift)
    losses.append(float(loss_and_slope(noisy)[0]))
layer.cell.log_weight.assign(start)
difference = (losses[0] - losses[1]) / (2 * step)
print(f"derivative {float(slope):.6f}, by differences {difference:.6f}")

# %% [markdown]
# So any optimiser finds the weight; here the secant method, in the logarithm of the weight.

# %%
points, slopes = [start, start + 0.2], [float(slope)]
for _ in range(8):
    layer.cell.log_weight.assign(points[-1])
    loss, slope = loss_and_slope(noisy)
    slopes.append(float(slope))
    psnr = -10 * np.log10(float(loss))
    print(f"weight {np.exp(points[-1]):.4f}: {psnr:.3f} dB, slope {slopes[-1]: .1e}")
    if abs(slopes[-1]) < 1e-7:
        break
    change = slopes[-1] * (points[-1] - points[-2]) / (slopes[-1] - slopes[-2])
    points.append(points[-1] - change)

# %%
learned = layer(noisy)
first = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation(), weight=0.04)
pictures = {"Noisy": noisy[0], "First weight": first(noisy)[0], "Learned weight": learned[0]}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")
