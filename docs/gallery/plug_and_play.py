"""Plug-and-play: a denoiser's prior in problems that it was not trained for

Untied experts were trained to denoise, as the learned map of an equilibrium model. Put beside
another operator they reconstruct from its measurements, with a weight for the noise there and no
training.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=128)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noise = dk.operators.GaussianNoise(0.02)
number = tf.constant([0], tf.int64)
prior, card = dk.presets.load("untied_foe_bsd400"), dk.presets.card("untied_foe_bsd400")
print(f"trained for noise {card['noise']}, with the weight {card['weight']:.3f}")

# %% [markdown]
# The weight goes with the square of the noise, which is a fifth of that of the training.

# %%
weight = card["weight"] * (0.02 / card["noise"]) ** 2
operators = {
    "Deconvolution": dk.operators.GaussianBlur(kernel_size=9, stddev=1.6),
    "Super-resolution": dk.operators.Downsample(2),
}
solutions = {}
for name, operator in operators.items():
    measured = noise(operator(truth), number)
    cell = dk.layers.GradientStep(operator, prior, weight)
    layer = dk.layers.Equilibrium(cell, solver=dk.solvers.Anderson(tolerance=1e-4, max_steps=300))
    solve = tf.function(lambda y, layer=layer: layer.solve(y, return_history=True))
    solutions[name] = solution = solve(measured)
    shown = measured
    if measured.shape != truth.shape:
        shown = tf.image.resize(measured, truth.shape[1:3], method="bicubic")
    pictures = {"Measured": shown[0], "Reconstructed": solution.value[0]}
    before, after = (float(dk.metrics.psnr(truth, p)[0]) for p in (shown, solution.value))
    print(f"{name}: {before:.2f} dB, then {after:.2f} dB;", end=" ")
    print("steps", solution.steps.numpy(), "converged", solution.converged.numpy())
    dk.plot.reconstructions(pictures, truth[0], heading=name).savefig(f"{name.lower()}.png")

# %% [markdown]
# Nothing certifies that such an iteration converges, so the verdict matters: deconvolution did,
# and super-resolution was stopped on its way.

# %%
dk.plot.residuals(solutions, tolerance=1e-4).savefig("residuals.png")
