"""A prior that is trained as a critic, without a solve: adversarial regularisation.

    python -m experiments.train --config=experiments/configs/train_adversarial.py \\
        --data_dir=FOLDER --workdir=runs/critic
    python -m experiments.transfer --from=runs/critic --config.task=denoising \\
        --workdir=runs/transfer

The second line fits the weight and a scale on five images, and compares with total variation. On
the photographs that scikit-image ships (without --data_dir): 16 s of processor time for the first
line, to a validation loss of -0.81 (-1 is perfect) and 27.3 dB for one gradient step; 30.08 dB,
SSIM 0.793 after the second (total variation: 29.72 dB, 0.762).
"""

from experiments.configs import train_demo


def get_config():
    config = train_demo.get_config()
    config.model = "denoiser"
    config.train.loss = "adversarial"
    config.train.validation = "patches"
    return config
