"""Denoising of natural images with a convex ridge regulariser, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_convex.py \\
        --data_dir=FOLDER --workdir=runs/convex
    python -m experiments.evaluate --workdir=runs/convex
"""

from experiments.configs import train_weakly_convex


def get_config():
    config = train_weakly_convex.get_config()
    config.prior.weak_convexity = 0.0
    config.train.epochs = 12
    return config
