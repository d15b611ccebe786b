"""Pretraining of a denoiser, for an energy and for plug-and-play, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/denoiser
    python -m experiments.evaluate --workdir=runs/denoiser --precision=float32

A U-Net of 350,464 parameters. On 400 natural images of 180 x 180 pixels (280 to train on, 80 to
test, noise 0.1), by the averaged weights of the last epoch: 29.29 dB, SSIM 0.840; tuned total
variation has 27.24 dB. The 32,000 steps take 0.12 s of processor time each: 35 minutes on two cores
that do nothing else. In float32 they take 1.6 times as long on processors that know bfloat16, and
on others bfloat16 is slow: `--config.train.precision=float32`. Two trainings go on from the working
directory: that of an energy, `train_denoiser_energy.py`, and that of an equilibrium model,

    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/proximal --config.model=proximal \\
        --config.train.start=runs/denoiser --config.train.step_size=0.7 \\
        --config.train.tolerance=0.01 --config.train.epochs=12 --config.train.steps_per_epoch=200 \\
        --config.train.learning_rate=0.0003 --config.train.average=0.99 \\
        '--config.train.phases=((12, 1e-2, "jacobian_free"),)'
    python -m experiments.evaluate --workdir=runs/proximal --precision=float32 --tolerance=1e-4

whose 2400 steps took twelve minutes on two cores that did other work as well. It has the same
parameters and 29.31 dB, SSIM 0.840, by 7 applications of the network: 0.02 dB more for seven times
the work.
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
    denoiser.blocks = 3
    denoiser.activation = "elu"
    train = config.train
    train.epochs = 64
    train.steps_per_epoch = 500
    train.batch_size = 16
    train.learning_rate = 0.0006  # without normalisation more is not stable
    train.clip_norm = 0.05
    train.average = 0.998
    train.precision = "mixed_bfloat16"
    train.validation = "patches"
    return config
