"""Denoising of natural images with sharper experts, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_natural.py \\
        --data_dir=FOLDER --workdir=runs/natural
    python -m experiments.evaluate --workdir=runs/natural

On 400 natural images of 180 x 180 pixels (80 of them to test, noise 0.1): 27.88 dB, SSIM 0.781 by
the averaged weights, after three minutes of training on two cores that did other work as well; with
`--config.model=equilibrium` 28.50 dB, SSIM 0.813, after three and a half. Tuned total variation:
27.24 dB.
"""

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.prior.max_sharpness = 8000.0
    config.train.epochs = 25
    config.train.steps_per_epoch = 20
    config.train.average = 0.98
    config.train.validation = "patches"
    config.evaluate.training_batches = 16
    return config
