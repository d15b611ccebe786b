"""Denoising of natural images with a convex ridge regulariser, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_convex.py \\
        --data_dir=FOLDER --workdir=runs/convex
    python -m experiments.evaluate --workdir=runs/convex

On 400 natural images of 180 x 180 pixels (80 to test, noise 0.1): 27.85 dB, SSIM 0.775 by the
averaged weights of the last epoch, where tuned total variation has 27.24 dB and the 24 filters of
`train_natural.py` 27.88 dB.
"""

from experiments.configs import train_weakly_convex


def get_config():
    config = train_weakly_convex.get_config()
    config.prior.weak_convexity = 0.0
    config.train.epochs = 12
    return config
