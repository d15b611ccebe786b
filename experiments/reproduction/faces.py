"""Models of the experiments on photographs: fields of experts, and their operators."""

import keras

import deq_keras as dk
from experiments.reproduction import images
from trainers.process.errors import unknown_name

SUBSETS = ("quick", "full")
TASKS = ("denoising", "deblurring")
TITLE = "Fields of experts on photographs"
DESCRIPTION = (
    "Grey images in one batch. The regulariser's gradient is Cᵀ tanh(100 Au) with filters that "
    "see zeros around the image: C = A for the bilevel model, both free for the equilibrium model."
)
DATA_WEIGHT, SHARPNESS, NORM = 18.156, 100.0, 2.7300944
# name -> number of filters, their side, how they start
FILTERS = {
    "first_order": (2, 11, "first_order"),
    "second_order": (2, 11, "second_order"),
    "random_11": (2, 11, None),
    "random_3": (30, 3, None),
}

load = images.photographs


def operator(settings, dtype="float32"):
    """The operator of a task. The paper's blur sees zeros around the image."""
    task = settings["task"]
    if task == "denoising":
        return dk.operators.Identity(dtype=dtype)
    if task == "deblurring":
        return dk.operators.DiagonalBlur(settings["blur"], padding="zero", dtype=dtype)
    raise unknown_name("task", task, TASKS)


def prior(settings, seed=0, dtype="float32"):
    """The experts, with the first weights of a seed."""
    if settings["filters"] not in FILTERS:
        raise unknown_name("start of the filters", settings["filters"], FILTERS)
    count, side, start = FILTERS[settings["filters"]]
    if start is None:  # uniform, as of convolutions in PyTorch
        start = keras.initializers.RandomUniform(-1 / side, 1 / side, seed=seed)
    tied = settings["model"] == "bilevel"
    cls = dk.priors.FieldsOfExperts if tied else dk.priors.UntiedFieldsOfExperts
    made = cls(
        count,
        side,
        sharpness=SHARPNESS * _norm(settings),
        max_sharpness=None,
        padding="zero",
        zero_mean=False,
        filters_initializer=start,
        normalize=settings["norms"],
        train_sharpness=False,
        dtype=dtype,
    )
    made.build((None, None, None, 1))
    return made


def _norm(settings):
    return NORM if settings["norms"] else 1.0


def weight(settings):
    """The regularisation parameter, for the data fidelity `||K u - y||^2 / 2`."""
    return _norm(settings) / DATA_WEIGHT


def step_size(settings, fidelity):
    """The length of a step: the paper's; else the certified one."""
    if fidelity != "paper":
        return None
    tau = 1.0 / (8.0 * SHARPNESS)
    return DATA_WEIGHT * (tau if settings["task"] == "denoising" else tau / 4.0)


def published_solver(settings, config):
    """The solver of the paper."""
    longer = 1 if settings["task"] == "denoising" else 4
    return dk.solvers.Picard(
        tolerance=config.published.tolerance,
        max_steps=longer * config.published.max_steps,
        stopping="batch",
    )


def start(measurement):
    """Where the paper's solver starts: at the measurement."""
    return measurement


def learning_rate(config, settings, steps_per_epoch):
    """The rate, which falls linearly."""
    train, task = config.train, settings["task"]
    trained = settings["start"] in ("bilevel", "bilevel_further")
    first = train.further_rate if trained else train.learning_rate[task]
    return keras.optimizers.schedules.PolynomialDecay(
        first, train.schedule_epochs * steps_per_epoch, first * train.final_share[task]
    )


def pictures(found):
    """The filters, as the map uses them."""
    named = {"analysis": "A", "synthesis": "C"}
    return {named[key]: value.numpy() for key, value in found.pictures().items()}
