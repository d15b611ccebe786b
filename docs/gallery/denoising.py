"""Denoising: total variation, and priors that were trained

A photograph with noise of standard deviation 0.1, denoised by total variation and by three
priors that come with the package: convex fields of experts, a weakly convex ridge regulariser,
and the untied experts of an equilibrium model.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=192)["test"].images[0]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64))

# %% [markdown]
# The minimiser of an energy is a `Variational` layer, and the fixed point of a learned map an
# `Equilibrium`. A preset says which weight belongs to it.

# %%
identity = dk.operators.Identity()


def variational(prior, weight):
    return dk.layers.Variational(identity, prior, weight=weight)


def trained(name):
    return dk.presets.load(name), dk.presets.card(name)["weight"]


untied, weight = trained("untied_foe_bsd400")
layers = {
    "Total variation": variational(dk.priors.TotalVariation(), 0.07),
    "Fields of experts": variational(*trained("foe_bsd400")),
    "Weakly convex": variational(*trained("wcrr_bsd400")),
    "Equilibrium": dk.layers.Equilibrium(dk.layers.GradientStep(identity, untied, weight)),
}

# %% [markdown]
# `solve` says how many evaluations of the map were taken, and whether they converged.

# %%
pictures = {"Noisy": noisy[0]}
for name, layer in layers.items():
    solution = layer.solve(noisy)
    pictures[name] = solution.value[0]
    psnr = float(dk.metrics.psnr(truth, solution.value)[0])
    print(f"{name:18} {psnr:.2f} dB, {int(solution.steps[0])} steps", solution.converged.numpy())

# %%
figure = dk.plot.reconstructions(pictures, truth[0])
figure.savefig("reconstructions.png")
