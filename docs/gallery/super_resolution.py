"""Super-resolution: a quarter of the pixels

A photograph is measured at half of its height and width. The operator knows its adjoint for odd
sizes too, and the layer says the size of the image from that of the measurement.
"""

# %%
import tensorflow as tf

import deq_keras as dk
from trainers import datasets

photograph = datasets.load("photographs", max_side=96)["test"].images[1]
truth = tf.constant(photograph[None, : photograph.shape[0] // 2 * 2] / 255.0, tf.float32)
coarse = dk.operators.Downsample(2)
noise = dk.operators.GaussianNoise(0.01)
measured = noise(coarse(truth), tf.constant([0], tf.int64))
print("image", tuple(truth.shape), "measurement", tuple(measured.shape))

# %%
size = truth.shape[1:3]
bicubic = tf.image.resize(measured, size, method="bicubic")
tv = dk.layers.Variational(coarse, dk.priors.TotalVariation(), weight=0.002)
experts = dk.layers.Variational(coarse, dk.presets.load("foe_bsd400"), weight=0.002)
pictures = {
    "Bicubic": bicubic,
    "Total variation": tv(measured),
    "Fields of experts": experts(measured),
}
for name, picture in pictures.items():
    print(f"{name:18} {float(dk.metrics.psnr(truth, picture)[0]):.2f} dB")
figure = dk.plot.reconstructions({k: v[0] for k, v in pictures.items()}, truth[0])
figure.savefig("reconstructions.png")
