"""Denoising of natural images with a weakly convex ridge regulariser, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_weakly_convex.py \\
        --data_dir=FOLDER --workdir=runs/weakly_convex
    python -m experiments.evaluate --workdir=runs/weakly_convex

On 400 natural images of 180 x 180 pixels (280 to train on, 80 to test, noise 0.1): 28.53 dB, SSIM
0.812 by the averaged weights of the 23rd of the 24 epochs, where tuned total variation has
27.24 dB. A step took 1.6 s of processor time, the whole about an hour of it. A third of the steps
ran with an earlier form of L-BFGS, which evaluated energies and had no preconditioner.
"""

from ml_collections import ConfigDict

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.data.patch_size = 48
    config.prior = prior = ConfigDict()
    prior.name = "ridge_regularizer"  # of deq_keras.priors; the other entries are its arguments
    prior.filters = (4, 8, 64)
    prior.kernel_size = 5
    prior.weak_convexity = 0.95  # with a weight of 1 the energies stay convex
    prior.activation = "smoothed_l1"
    prior.padding = "reflect"
    train = config.train
    train.weight = 1.0
    train.epochs = 24
    train.steps_per_epoch = 100
    train.learning_rate = 0.004
    train.average = 0.99
    train.tolerance = 1e-3
    train.adjoint_tolerance = 3e-2
    train.validation = "patches"  # whole images take as long as half an epoch
    return config
