"""Denoising of natural images: ten minutes of training on a folder of one's own.

    python -m experiments.compare --config=experiments/configs/natural.py \\
        --data_dir=FOLDER --workdir=runs/natural
"""

from experiments.configs import demo


def get_config():
    config = demo.get_config()
    config.tasks = ("denoising",)
    config.train.steps = 800
    config.train.further_steps = 200
    return config
