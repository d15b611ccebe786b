"""Denoising of natural images: ten minutes of training on a folder of one's own.

    python -m experiments.compare --config=experiments/configs/natural.py \\
        --data_dir=FOLDER --workdir=runs/natural
"""

from experiments.configs import demo


def get_config():
    config = demo.get_config()
    config.tasks = ("denoising",)
    config.prior.max_sharpness = 8000.0
    config.train.steps = 500
    config.train.further_steps = 100
    # Anderson acceleration takes over 1000 steps for experts as sharp as these.
    config.train.equilibrium_solver = "nesterov"
    config.evaluate.training_batches = 16
    return config
