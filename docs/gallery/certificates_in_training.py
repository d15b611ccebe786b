"""Certificates during training

A training shows how well its solves went: residuals, steps, and where the energy is strongly
convex a certified bound on the error of each reconstruction, and of each derivative. Here it is
held against the truth.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

keras.utils.set_random_seed(0)
photographs = datasets.load("photographs", max_side=128)["train"].images
sharp = np.stack([p[24:56, 24:56] / 255.0 for p in photographs] * 4).astype("float32")
noisy = dk.operators.GaussianNoise(0.1)(sharp, tf.range(len(sharp), dtype=tf.int64))
prior = dk.priors.FieldsOfExperts(filters=8, kernel_size=3, max_sharpness=1000.0)
solver = dk.solvers.LBFGS(tolerance=1e-3)
layer = dk.layers.Variational(dk.operators.Identity(), prior, solver=solver, name="bilevel")
model = keras.Sequential([keras.Input((None, None, 1)), layer])
model.compile(keras.optimizers.Adam(0.05), "mse", metrics=[dk.metrics.PSNR()])
history = model.fit(noisy, sharp, batch_size=7, epochs=5, verbose=0).history
for key in ("psnr", "bilevel_forward_steps", "bilevel_forward_residual", "bilevel_converged"):
    print(f"{key:26}", np.array(history[key]).round(4))
print(f"{'bilevel_error_bound':26}", np.array(history["bilevel_error_bound"]).round(5))

# %% [markdown]
# `error_bound` bounds the distance to the exact minimiser. To see how sharp it is, the
# minimiser is computed in float64 as exactly as that allows.

# %%
exact = dk.layers.Variational(
    dk.operators.Identity(dtype="float64"),
    dk.priors.FieldsOfExperts(filters=8, kernel_size=3, max_sharpness=1000.0, dtype="float64"),
    solver=dk.solvers.LBFGS(tolerance=1e-12),
    adjoint=dk.adjoints.Implicit(dk.linear_solvers.ConjugateGradient(tolerance=1e-12)),
    dtype="float64",
)
exact.build(noisy.shape)
exact.set_weights(layer.get_weights())
minimiser = exact.solve(tf.cast(noisy, tf.float64)).value

print("tolerance   true error   certified bound")
for tolerance in (1e-1, 1e-2, 1e-3):
    with dk.layers.observe(tolerance=tolerance):
        value = model(noisy[:1])
    bound = layer.error_bound(noisy[:1], value)
    error = float(tf.norm(tf.cast(value, tf.float64) - minimiser[:1]))
    print(f"{tolerance:9.0e} {error:12.2e} {float(bound.value[0]):17.2e}", bound.certified.numpy())

# %% [markdown]
# Of the derivative of a loss by the measurement and by each weight there is a bound too. It asks
# for tight solves: here those in float64.

# %%
for name, bound in exact.hypergradient_bound(noisy[:1], sharp[:1]).items():
    print(f"{name:14} {float(bound.value[0]):.2e}", bound.certified.numpy())

# %%
solution = layer.solve(noisy[:8], return_history=True)
dk.plot.residuals(solution, tolerance=1e-3).savefig("residuals.png")
