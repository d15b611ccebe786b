"""Denoising of natural images with a convex regulariser of larger filters, on one's own folder.

    python -m experiments.train --config=experiments/configs/train_convex.py \\
        --data_dir=FOLDER --workdir=runs/convex
    python -m experiments.evaluate --workdir=runs/convex

48 filters of 7 x 7 pixels, trained for the mean PSNR.
"""

from experiments.configs import train_natural


def get_config():
    config = train_natural.get_config()
    config.data.patch_size = 64
    config.prior.filters = 48
    config.prior.kernel_size = 7
    train = config.train
    train.epochs = 40
    train.monitor = "val_psnr"
    return config
