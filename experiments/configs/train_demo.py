"""One model on the photographs that scikit-image ships: the entries of `experiments.train`.

    python -m experiments.train --config=experiments/configs/train_demo.py --workdir=runs/train
    python -m experiments.evaluate --workdir=runs/train

Two minutes on two cores that did other work as well. The three test photographs: 29.73 dB, SSIM
0.741 (measurements: 20.01 dB), by the weights of the best epoch, the 11th. With
`--config.model=equilibrium` 30.79 dB, SSIM 0.803, by the 18th epoch, in a minute and a half of
processor time.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments import tasks
from experiments.configs import demo


def get_config():
    config = ConfigDict()
    config.task = "denoising"  # one of experiments.tasks.TASKS
    # "bilevel", "equilibrium"; "denoiser", which solves nothing, to pretrain a prior; "proximal",
    # the equilibrium of proximal steps of a denoiser; or "package.module:function" for your own
    # model: it is given this configuration and returns a compiled Keras model for measurements.
    config.model = "bilevel"
    config.seed = 0

    # Images, noise and prior are those of the comparison.
    compared = demo.get_config()
    for section in ("data", *tasks.TASKS, "prior"):
        config[section] = compared[section]

    config.train = train = ConfigDict()
    train.epochs = 20
    train.steps_per_epoch = 10
    train.batch_size = 8  # of all workers together
    train.learning_rate = 0.03
    # Steps in which the rate falls along a cosine to a tenth; 0: it stays.
    train.decay_steps = train.get_oneway_ref("epochs") * train.get_oneway_ref("steps_per_epoch")
    # Without clean images: "sure", "r2r" or "noise2noise"; of the model "denoiser" "adversarial",
    # which makes its prior a critic; see docs/training.md. With them: "psnr" for its mean over
    # images, or None for the mean squared error.
    train.loss = placeholder(str)
    train.weight = placeholder(float)  # start of lambda; None: the best for the fixed patches
    # A finished training, such as one of "denoiser", whose prior has the weights to start from.
    train.start = ""
    train.tolerance = 1e-4  # of forward solves: ||grad E(u)|| <= tolerance ||K^T y||
    train.adjoint_tolerance = 1e-2
    train.equilibrium_solver = "anderson"
    # Of untied experts; see `dk.priors.UntiedFieldsOfExperts`. With a limit of 5, say, denoisers
    # have one fixed point, and certified error bounds; None: no limit.
    train.hypomonotonicity = placeholder(float)
    # tau of the model "proximal"; None: 1 / ||K||^2, with which a denoiser is applied just once.
    train.step_size = placeholder(float)

    # Looser solves and cheaper derivatives at first: (epochs, tolerance, adjoint), one after the
    # other, such as ((5, 1e-2, "jacobian_free"),); None in them: as in the rest of the training.
    train.phases = ()

    train.accumulation = 1  # parts of a batch that are computed one after the other
    train.clip_norm = placeholder(float)  # of the gradient over all weights
    train.average = placeholder(float)  # decay of a moving average of the weights, such as 0.99
    train.precision = "float32"  # or "float64", "mixed_bfloat16", "mixed_float16"
    train.deterministic = True  # TensorFlow's deterministic operations
    train.max_skipped = 10  # steps without a finite gradient that are left out, not fatal

    # After each epoch: "patches" (the central squares of the validation images), "images" or "".
    train.validation = "images"
    train.monitor = "val_loss"  # what says which epoch is the best
    train.mode = "auto"  # as its metric says; "min" or "max" of one that does not
    # Epochs without improvement after which the training ends, or the rate is halved.
    train.early_stopping = placeholder(int)
    train.reduce_on_plateau = placeholder(int)

    train.keep = 3  # checkpoints, in addition to the best one
    train.save_every = placeholder(int)  # steps, in addition to the end of each epoch
    train.tensorboard = True
    # After each epoch: how well I - J is conditioned, estimated on a batch of validation images.
    train.conditioning = False

    config.evaluate = ConfigDict()
    config.evaluate.training_batches = 4  # fixed training patches, to find the first lambda
    config.evaluate.pictures = 3  # in TensorBoard

    # A training may be continued with other values of these: they do not matter for its steps.
    config.may_change = (
        "train.epochs",
        "train.early_stopping",
        "train.max_skipped",
        "train.keep",
        "train.save_every",
        "train.tensorboard",
        "train.conditioning",
        "evaluate.pictures",
        "may_change",
    )
    return config
