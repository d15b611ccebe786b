"""What a trained prior has learned

Presets are priors with their weights and a card that says how they were made. Here is what the
weakly convex ridge regulariser looks like: its filters, and the function that each applies to
its responses. Then its weight is varied.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

card = dk.presets.card("wcrr_bsd400")
print(card["description"])
print(f"{card['parameters']} parameters; {card['results']['psnr']:.2f} dB on the test images")
prior = dk.presets.load("wcrr_bsd400")
print(prior)

# %% [markdown]
# The filters are products of three layers, so they see 13 × 13 pixels. They are sorted by norm.

# %%
dk.plot.filters(prior).savefig("filters.png")

# %% [markdown]
# Near zero a potential is quadratic, then it grows like the absolute value, and for the
# responses of strong edges more slowly: an edge costs less than in a convex prior.

# %%
dk.plot.potentials(prior, largest=0.3).savefig("potentials.png")

# %% [markdown]
# What is certified of it follows from the weights: the energy of denoising stays convex up to
# the weight that the modulus allows.

# %%
modulus = float(prior.strong_convexity((96, 96)))
print(f"modulus {modulus:.2f}: convex up to the weight {-1 / modulus:.2f}")

photograph = datasets.load("photographs", max_side=96)["test"].images[1]
truth = tf.constant(photograph[None] / 255.0, tf.float32)
noisy = dk.operators.GaussianNoise(0.1)(truth, tf.constant([0], tf.int64))
pictures = {"Noisy": noisy[0]}
for weight in (0.3, card["weight"]):
    layer = dk.layers.Variational(dk.operators.Identity(), prior, weight=weight)
    pictures[f"Weight {weight}"] = layer(noisy)[0]
dk.plot.reconstructions(pictures, truth[0], zoom=None).savefig("weights.png")
