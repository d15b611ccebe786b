"""Pretraining of a denoiser, for an energy and for plug-and-play, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/denoiser
    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/longer --config.train.start=runs/denoiser \\
        --config.train.learning_rate=0.0005
    python -m experiments.evaluate --workdir=runs/longer

A U-Net of 239,872 parameters. On 400 natural images of 180 x 180 pixels (280 to train on, 80 to
test, noise 0.1), by the averaged weights of the last epoch: 28.65 dB, SSIM 0.821 after the first
line, 28.84 dB, SSIM 0.827 after the second; tuned total variation has 27.24 dB. Each takes 4000
steps of 0.12 s of processor time; on two cores that did much other work as well they took 15 and 20
minutes. `train_denoiser_energy.py` goes on from the working directory.
"""

from ml_collections import ConfigDict

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.model = "denoiser"
    config.data.patch_size = 64
    # Equal: one level. With least_noise=0.0 a level for each image, between that and `noise`.
    config.denoising.least_noise = config.denoising.noise
    config.denoising.known = False  # whether it is passed on, to a prior that takes it
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
