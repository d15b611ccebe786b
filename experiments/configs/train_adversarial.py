"""A prior that is trained as a critic, without a solve: adversarial regularisation.

    python -m experiments.train --config=experiments/configs/train_adversarial.py \\
        --data_dir=FOLDER --workdir=runs/critic
    python -m experiments.transfer --from=runs/critic --config.task=denoising \\
        --workdir=runs/transfer

The second line fits the weight and a scale on five images, and compares with total variation.
"""

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.model = "denoiser"
    config.train.loss = "adversarial"
    config.train.validation = "patches"
    return config
