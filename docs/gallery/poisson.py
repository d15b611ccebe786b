"""Photon counts: Poisson noise and images that are not negative

Where a picture is made of few photons its noise is no Gaussian. The fidelity that belongs to
counts is the Kullback-Leibler divergence, and rates are not negative: both are one argument of
a layer.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=160)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
peak = 30.0  # photons of a white pixel
rates = dk.operators.PoissonNoise(peak)(truth, tf.constant([0], tf.int64))

# %% [markdown]
# The divergence is in units of the measurement, so counts over the peak need the background,
# here of one photon, and the weight over the peak.

# %%
prior = dk.priors.TotalVariation()
blind = dk.layers.Variational(dk.operators.Identity(), prior, weight=0.1)
counting = dk.layers.Variational(
    dk.operators.Identity(),
    prior,
    weight=0.15,
    fidelity=dk.fidelities.Poisson(background=1.0 / peak),
    constraint="non_negative",
)
print(counting)
solution = counting.solve(rates, verbose=1)

# %%
pictures = {
    "Photons": rates[0],
    "Least squares": blind(rates)[0],
    "Poisson": solution.value[0],
}
dk.plot.reconstructions(pictures, truth[0]).savefig("reconstructions.png")
print("smallest pixel:", float(tf.reduce_min(solution.value)))
