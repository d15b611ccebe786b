"""Denoising of natural images: ten minutes of training on a folder of one's own.

    python -m experiments.compare --config=experiments/configs/natural.py \\
        --data_dir=FOLDER --workdir=runs/natural

On 400 natural images of 180 x 180 pixels, a fifth of them held out: total variation 27.24 dB,
bilevel 27.88 dB after 9 minutes of training on two cores.
"""

from experiments.configs import demo


def get_config():
    config = demo.get_config()
    config.tasks = ("denoising",)
    config.prior.max_sharpness = 8000.0
    config.train.steps = 500
    config.train.further_steps = 100
    config.evaluate.training_batches = 16
    return config
