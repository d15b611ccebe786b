"""Models of the experiments on digits: affine experts, free in size, and their operators."""

import keras
import numpy as np

import deq_keras as dk
from experiments.reproduction import images
from trainers.process.errors import unknown_name

SUBSETS = ("quick", "reference", "full")
TASKS = ("denoising", "inpainting", "deblurring")
TITLE = "Affine experts on digits"
DESCRIPTION = (
    "Digits of 28 x 28 pixels, seen as vectors. The regulariser's gradient is Aᵀσ(Au + b) "
    "(bilevel) or Bσ(Au + b) (equilibrium), with free matrices of 784 x 784."
)
SHOWN_EXPERTS = 64  # of 784, the largest

load = images.digits


def operator(settings, dtype="float32"):
    """The operator of a task, for images of 28 x 28 pixels."""
    task = settings["task"]
    if task == "denoising":
        return dk.operators.Identity(dtype=dtype)
    if task == "deblurring":
        return dk.operators.DiagonalBlur(5, dtype=dtype)
    if task == "inpainting":
        mask = np.ones((28, 28))
        mask[:10] = 0.0  # the top third, rounded up
        return dk.operators.Mask(mask, dtype=dtype)
    raise unknown_name("task", task, TASKS)


def prior(settings, seed=0, dtype="float32"):
    """The experts, with the first weights of a seed: uniform, as of dense layers in PyTorch."""
    activation, tied = settings["activation"], settings["model"] == "bilevel"
    if activation == "soft_shrinkage":
        activation = {"name": activation, "threshold": settings["tau"]}
    cls = dk.priors.AffineExperts if tied else dk.priors.UntiedAffineExperts
    made = cls(
        activation=activation,
        kernel_initializer=_uniform(seed, 0),
        bias_initializer=_uniform(seed, 1),
        normalize=False,
        train_sharpness=False,
        dtype=dtype,
    )
    made.build((None, 28, 28, 1))
    if not tied:
        made.synthesis.assign(_uniform(seed, 2)(made.synthesis.shape, dtype))
    return made


def _uniform(seed, number):
    return keras.initializers.RandomUniform(-1 / 28, 1 / 28, seed=1000 * seed + number)


def step_size(settings, fidelity):
    """The length of a step: the paper's `tau`; else one that is right for the first weights.

    Fixed points do not depend on it, and a certified one would need the norm of a matrix, which
    takes as long as the whole solve.
    """
    return settings["tau"] if fidelity == "paper" else 1.0 / (1.0 + settings["gamma"])


def weight(settings):
    """The regularisation parameter, for the data fidelity `||K u - y||^2 / 2`."""
    return settings["gamma"]


def published_solver(settings, config):
    """The solver of the paper."""
    options = config.published
    return dk.solvers.PlainAnderson(
        memory=options.memory,
        ridge=options.ridge,
        tolerance=options.tolerance,
        max_steps=options.max_steps,
        stopping="batch",
    )


def start(measurement):
    """Where the paper's solver starts: at zero."""
    return keras.ops.zeros_like(measurement)


def learning_rate(config, settings, steps_per_epoch):
    """The rate, which falls along a cosine."""
    train = config.train
    first = train.learning_rate if settings["start"] == "random" else train.further_rate
    steps = train.schedule_epochs * steps_per_epoch
    return keras.optimizers.schedules.CosineDecay(first, steps, train.final_rate / first)


def pictures(found):
    """The experts that are shown, the largest of the analysis and those of the synthesis."""
    c = found.coefficients()
    matrices = {"A": c.analysis.numpy()}
    if not found.tied:
        matrices["C"] = c.synthesis.numpy()
    order = np.argsort(-np.linalg.norm(matrices["A"], axis=0), kind="stable")[:SHOWN_EXPERTS]
    return {key: m[:, order].T.reshape(-1, 28, 28, 1) for key, m in matrices.items()}
