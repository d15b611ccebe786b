"""Bilevel learning of the energy of a pretrained denoiser, on a folder of one's own.

    python -m experiments.train --config=experiments/configs/train_denoiser_energy.py \\
        --data_dir=FOLDER --workdir=runs/energy --config.train.start=runs/denoiser
    python -m experiments.evaluate --workdir=runs/energy

`runs/denoiser` is the working directory of `train_denoiser.py`. The same file, with
`--config.model=proximal`, trains the equilibrium of proximal steps of the denoiser for other tasks.
"""

from experiments.configs import train_denoiser


def get_config():
    config = train_denoiser.get_config()
    config.model = "bilevel"
    config.data.patch_size = 48
    train = config.train
    train.epochs = 6
    train.steps_per_epoch = 20
    train.batch_size = 8
    train.learning_rate = 0.0003
    train.average = 0.95
    train.tolerance = 1e-3
    train.adjoint_tolerance = 0.05
    config.evaluate.training_batches = 1  # to find the first lambda: each solve takes a while
    return config
