"""Bilevel learning of the energy of a pretrained denoiser, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_denoiser.py \\
        --data_dir=FOLDER --workdir=runs/blind --config.train.start=runs/denoiser \\
        --config.denoising.least_noise=0.0 --config.train.epochs=4 \\
        --config.train.learning_rate=0.0004
    python -m experiments.train --config=experiments/configs/train_denoiser_energy.py \\
        --data_dir=FOLDER --workdir=runs/energy --config.train.start=runs/blind
    python -m experiments.evaluate --workdir=runs/energy

`runs/denoiser` is the working directory of `train_denoiser.py`, whose denoiser learns in the first
line also of less noise: at a minimiser there is little. Minimisers of the energy of such a denoiser
are still bad: bilevel learning is what makes them good. Of a smaller denoiser, of two blocks
(`--config.prior.denoiser.blocks=2` in all lines) and 28.6 dB, they had 22.5 dB on validation
patches. 120 steps, twelve minutes on two cores that did much other work as well, and
by then the third epoch of the first line: 28.02 dB on the 40 validation patches of 32 x 32, still
rising.

The same file, with `--config.model=proximal`, trains the equilibrium of proximal steps of the
denoiser for other tasks.
"""

from experiments.configs import train_denoiser


def get_config():
    config = train_denoiser.get_config()
    config.model = "bilevel"
    config.data.patch_size = 32
    train = config.train
    train.precision = "float32"
    train.weight = 8.0
    train.epochs = 6
    train.steps_per_epoch = 20
    train.batch_size = 4
    train.learning_rate = 0.0002
    train.average = None
    train.tolerance = 3e-3
    train.adjoint_tolerance = 0.1
    return config
