"""Pretraining of a denoiser, for an energy and for plug-and-play, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/denoiser
    python -m experiments.evaluate --workdir=runs/denoiser

A U-Net of 239,872 parameters. `train_denoiser_energy.py` goes on from its working directory.
"""

from ml_collections import ConfigDict

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.model = "denoiser"
    config.data.patch_size = 64
    config.prior = prior = ConfigDict()
    prior.name = "denoiser_energy"  # of deq_keras.priors; the other entries are its arguments
    prior.denoiser = denoiser = ConfigDict()
    denoiser.name = "unet"  # of deq_keras.denoisers; the other entries are its arguments
    denoiser.filters = (32, 64)
    denoiser.blocks = 2
    denoiser.activation = "elu"
    train = config.train
    train.epochs = 16
    train.steps_per_epoch = 250
    train.batch_size = 16
    train.learning_rate = 0.0006  # without normalisation more is not stable
    train.clip_norm = 0.05
    train.average = 0.995
    train.validation = "patches"
    return config
