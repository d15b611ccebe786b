"""Tomography: a slice from few X-ray views

Parallel X-rays give the integrals of an image along lines. Of 24 views with noise, filtered
backprojection makes streaks; a model that minimises an energy does not.
"""

# %%
import numpy as np
import tensorflow as tf

import deq_keras as dk

# A slice of ellipses: place, half axes, turn in degrees, density that it adds.
ELLIPSES = [
    (0.0, 0.0, 0.72, 0.92, 0, 0.8),
    (0.0, 0.0, 0.66, 0.86, 0, -0.5),
    (0.25, 0.05, 0.14, 0.34, 18, -0.2),
    (-0.25, 0.0, 0.18, 0.42, -18, -0.2),
    (0.0, -0.35, 0.2, 0.22, 0, 0.25),
    (0.05, 0.45, 0.05, 0.05, 0, 0.3),
    (-0.1, 0.5, 0.03, 0.06, 30, 0.3),
]
n = 96
right, down = np.meshgrid(np.linspace(-1, 1, 4 * n), np.linspace(-1, 1, 4 * n))
truth = np.zeros((4 * n, 4 * n))
for x, y, a, b, turn, density in ELLIPSES:
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    p, q = right - x, down - y
    truth += density * (((c * p + s * q) / a) ** 2 + ((c * q - s * p) / b) ** 2 < 1)
truth = truth.reshape(n, 4, n, 4).mean((1, 3))[None, ..., None]
truth = tf.constant(truth, tf.float32)

# %%
# The unit of length is that of the integrals: pixels of 1/100 give values near 1. Without noise the
# sum of each projection is that of the slice.
scanner = dk.operators.Radon(angles=24, pixel_size=0.01)
sinogram = scanner(truth)
error = dk.testing.dot_test(scanner, truth.shape)
print("sinogram", tuple(sinogram.shape), f"adjoint right to {error:.0e}")
spread = np.ptp(tf.reduce_sum(sinogram, 2)) / np.max(tf.reduce_sum(sinogram, 2))
print(f"sums of the projections differ by {spread:.0e}")
noise = dk.operators.GaussianNoise(0.005)
measured = noise(sinogram, tf.constant([0], tf.int64))

# %%
# The measurement has a third of the numbers of the slice, so the prior has to fill in what no ray
# says. The weight is the best of a few for both. Flat ellipses are what total variation is made
# for; the experts learned from photographs.
tv = dk.layers.Variational(scanner, dk.priors.TotalVariation(), weight=0.0002)
experts = dk.layers.Variational(scanner, dk.presets.load("foe_bsd400"), weight=0.0002)
pictures = {
    "Filtered backprojection": scanner.filtered_backprojection(measured),
    "Total variation": tv(measured),
    "Fields of experts": experts(measured),
}
for name, picture in pictures.items():
    print(f"{name:24} {float(dk.metrics.psnr(truth, picture)[0]):.2f} dB")
print("steps", int(tv.solve(measured).steps[0]), int(experts.solve(measured).steps[0]))
figure = dk.plot.reconstructions({k: v[0] for k, v in pictures.items()}, truth[0])
figure.savefig("reconstructions.png")
