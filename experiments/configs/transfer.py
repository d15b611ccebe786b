"""A trained prior on another task: what `experiments.transfer` solves, and how it fits two numbers.

    python -m experiments.transfer --preset=wcrr_bsd400 --config.task=deblurring \\
        --data_dir=FOLDER --workdir=runs/transfer

The seed says which images of a folder are for training and which for the test: with that of
`train_demo.py` and the folder of a training by it, the test images are those of that training.
"""

from ml_collections import ConfigDict

from experiments import tasks
from experiments.configs import demo


def get_config():
    config = ConfigDict()
    compared = demo.get_config()
    config.task = "deblurring"  # one of experiments.tasks.TASKS
    for section in ("seed", "data", *tasks.TASKS):
        config[section] = compared[section]
    config.total_variation = compared.total_variation

    config.solve = solve = ConfigDict()
    solve.tolerance = 1e-4  # ||grad E(u)|| <= tolerance ||K^T y||
    solve.max_steps = 2000
    solve.solver_of_maps = "newton_krylov"  # where the prior has no energy

    config.tuning = tuning = ConfigDict()
    tuning.images = 5  # the first of the training images, whole
    tuning.refinements = 3  # of the grids, each time to the neighbours of the best point
    return config
