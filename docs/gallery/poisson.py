"""Photon counts: Poisson noise and images that are not negative

Where a picture is made of few photons its noise is no Gaussian. The fidelity that belongs to
counts is the Kullback-Leibler divergence, and rates are not negative: both are one argument of
a layer.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=128)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
peak, background = 30.0, 0.2  # photons of a white pixel, and what a dark one counts of them
counts = dk.operators.PoissonNoise(peak)(truth + background, tf.constant([0], tf.int64))

# %% [markdown]
# For least squares the background has to be subtracted, and every pixel counts as much. The
# divergence knows of both: a pixel of few photons is more certain.

# %%
prior = dk.priors.TotalVariation()
blind = dk.layers.Variational(dk.operators.Identity(), prior, weight=0.1)
counting = dk.layers.Variational(
    dk.operators.Identity(),
    prior,
    weight=0.15,
    fidelity=dk.fidelities.Poisson(background),
    constraint="non_negative",
    solver=dk.solvers.NonmonotoneAPG(tolerance=1e-3),
)
print(counting)
solution = counting.solve(counts, verbose=1)

# %%
pictures = {
    "Photons": counts[0] - background,
    "Least squares": blind(counts - background)[0],
    "Poisson": solution.value[0],
}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")
print("smallest pixel:", float(tf.reduce_min(solution.value)))
