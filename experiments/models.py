"""Reconstruction models that are trained and compared, as compiled Keras models."""

import importlib
import re
from pathlib import Path

import keras

import deq_keras as dk
from deq_keras.losses.base import OwnLossModel
from experiments import supervision
from experiments.priors import prior
from experiments.tuning import tune_weight
from trainers.process.errors import ConfigurationError


def bilevel(task, config, weight=0.1):
    """The bilevel model: the minimiser of an energy with a learned prior.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration, with the sections `prior` and `train`.
        weight: Initial lambda.
    """
    return _variational(task, config, prior(config.prior), "bilevel", weight)


def equilibrium(task, config, weight=0.1):
    """The equilibrium model: a learned map, at first the gradient step of the bilevel one.

    Args: those of `bilevel`.
    """
    limit, options, most = config.train.get("hypomonotonicity"), {}, None
    if limit is not None:
        # Then a denoiser is strongly monotone, with a modulus of at least a tenth of the data's.
        options, most = {"hypomonotonicity": limit}, 0.9 / limit
        weight = min(weight, most)
    learned = prior(config.prior, tied=False, **options)
    cell = dk.layers.GradientStep(task.operator(), learned, weight, max_weight=most)
    return _fixed_point(cell, config, "equilibrium")


def one_step_denoiser(task, config, weight=0.01):
    """Pretraining: one gradient step on the prior, or the denoiser of a `DenoiserEnergy`.

    Args: those of `bilevel`; the weight is the length of the step.

    Raises:
        ConfigurationError: If the task is another one than denoising.
    """
    if task.name != "denoising":
        raise ConfigurationError(
            f"Expected the task 'denoising' for the model 'denoiser'. Received {task.name!r}: "
            "train the denoiser first, and the model of this task with its folder as train.start."
        )
    learned = prior(config.prior)
    # The denoiser of an energy takes no step; a critic is the energy itself.
    own = isinstance(learned, dk.priors.DenoiserEnergy) and not _is_critic(config)
    return dk.layers.OneStepDenoiser(learned, weight, train_weight=not own, name="denoiser")


def _is_critic(config):
    return config.train.get("loss") == "adversarial"


def proximal(task, config, weight=None):
    """The equilibrium of proximal steps whose network is the denoiser of the prior: DE-Prox.

    Args: those of `bilevel`; there is no weight, but a noise level where the denoiser takes one.

    Raises:
        ConfigurationError: If the prior is not made of a denoiser.
    """
    learned = prior(config.prior)
    if not isinstance(learned, dk.priors.DenoiserEnergy):
        raise ConfigurationError(
            "Expected the prior 'denoiser_energy' for the model 'proximal', whose network is its "
            f"denoiser. Received {config.prior.name!r}."
        )
    network = learned.denoiser
    if learned.takes_noise_level:
        network = dk.denoisers.DenoiserAtNoiseLevel(network, config[task.name].noise or 0.01)
    cell = dk.layers.ProximalStep(task.operator(), network, config.train.get("step_size"))
    return _fixed_point(cell, config, "proximal")


def total_variation(task, config):
    """Smoothed total variation, with nothing to learn but its weight.

    Args: those of `bilevel`; the section `total_variation` in place of `prior`.
    """
    fixed = dk.priors.TotalVariation(config.total_variation.smoothing)
    return _variational(task, config, fixed, "total_variation")


MODELS = {
    "bilevel": bilevel,
    "equilibrium": equilibrium,
    "denoiser": one_step_denoiser,
    "proximal": proximal,
}


def check_name(name):
    """Refuses a model that can have no such name.

    Raises:
        ConfigurationError: Unless it is one of `MODELS`, or like `"package.module:function"`.
    """
    if name not in MODELS and not re.fullmatch(r"[\w.]+:\w+", name):
        raise ConfigurationError(
            f"Expected `model` to be one of {sorted(MODELS)} or the name of a function of your "
            f"own, 'package.module:function'. Received {name!r}."
        )


def _function(name):
    """The function that `"package.module:function"` names."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The model {name!r} cannot be imported: {error}.") from error
    if not callable(found):
        raise ConfigurationError(f"Expected {name!r} to be a function. Received {found!r}.")
    return found


def _variational(task, config, prior, name, weight=0.1):
    kind = dk.linear_solvers.ConjugateGradient if prior.is_convex else dk.linear_solvers.MINRES
    return dk.layers.Variational(
        task.operator(),
        prior,
        weight,
        # A weakly convex prior scales itself, and a weight that grew would spoil the convexity.
        train_weight=prior.is_convex or not isinstance(prior, dk.priors.RidgeRegularizer),
        solver=dk.solvers.LBFGS(tolerance=config.train.tolerance),
        adjoint=_adjoint(kind, config),
        name=name,
    )


def _fixed_point(cell, config, name):
    solver = dk.solvers.get(config.train.equilibrium_solver)
    solver.tolerance = config.train.tolerance
    adjoint = _adjoint(dk.linear_solvers.GMRES, config)
    return dk.layers.Equilibrium(cell, solver=solver, adjoint=adjoint, name=name)


def _adjoint(kind, config):
    return dk.adjoints.Implicit(
        kind(tolerance=config.train.adjoint_tolerance),
        higher_order=config.train.get("loss") == "sure",  # which holds a derivative already
    )


def start_from(equilibrium_layer, variational_layer):
    """Give an equilibrium layer the weights of a trained variational one.

    At first both are the same map, as in the paper; where the prior has an untied form there are
    then twice the filters to learn. A weight above the `max_weight` of the new cell becomes that.
    """
    learned, trained = equilibrium_layer.cell.prior, variational_layer.prior
    if type(learned) is type(trained):
        learned.set_weights(trained.get_weights())
    else:
        learned.adopt(trained)
    variable = equilibrium_layer.cell.log_weight
    variable.assign(variational_layer.cell.log_weight)
    if variable.constraint is not None:  # which otherwise only an optimizer applies
        variable.assign(variable.constraint(variable))


def learned_part(layer):
    """The part of a model's layer that pretraining and further training have in common.

    Args:
        layer: What one of `MODELS` made.

    Returns:
        Its prior; of a `proximal` model the denoiser, whose weights are those of the prior.
    """
    if isinstance(layer, dk.layers.OneStepDenoiser):
        return layer.prior
    if isinstance(layer.cell, dk.layers.GradientStep):
        return layer.cell.prior
    network = layer.cell.network
    return network.denoiser if isinstance(network, dk.denoisers.DenoiserAtNoiseLevel) else network


def take_weights(layer, weights):
    """Gives the learned part of a layer the weights of another model's, unless they are `None`.

    Raises:
        ConfigurationError: If they are those of another prior.
    """
    if weights is None:
        return
    try:
        learned_part(layer).set_weights(weights)
    except ValueError as error:
        raise ConfigurationError(
            f"Expected train.start to be a training with the section `prior` of this one. {error}"
        ) from None


def model(layer, inputs, loss=None):
    """A Keras model of one layer.

    Args:
        layer: Maps measurements, with the operator's data if there are some, to images.
        inputs: What is measured, as symbolic tensors: `experiments.tasks.Task.inputs`.
        loss: A `deq_keras.losses.MeasurementLoss`, if it is to be trained without clean images.
    """
    if loss is not None:
        return dk.losses.SelfSupervised(inputs, layer(inputs), loss=loss)
    return keras.Model(inputs, layer(inputs))


def compiled(built_model, learning_rate, steps, loss="mse"):
    """Compile for `steps` steps of Adam, with a cosine decay to a tenth.

    Args:
        built_model: A built Keras model; those of `deq_keras.losses` have losses of their own.
        learning_rate: Initial learning rate.
        steps: Steps after which the rate has reached its end. `None`: it stays as it is.
        loss: What is compared with clean images.
    """
    if steps is not None:
        learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.1)
    built_model.compile(
        keras.optimizers.Adam(learning_rate),
        None if isinstance(built_model, OwnLossModel) else loss,
        metrics=[dk.metrics.PSNR()],
        jit_compile=False,  # XLA makes convolution loops on a CPU slower
    )
    return built_model


def tune(layer, problem):
    """Gives a layer the weight that is best for the fixed patches; see `experiments.tuning`.

    Args:
        layer: A layer that was built by `model`.
        problem: An `experiments.inverse_problem.InverseProblem`.
    """
    # A coarse grid first: small weights make ill-conditioned problems, and long solves.
    return tune_weight(layer, *problem.all_fixed_patches(), high=1.0, points=7, refinements=3)


def builder(problem, config, weight, start=None):
    """The function that makes and compiles the model of `experiments.train`, for a `Trainer`.

    Args:
        problem: An `experiments.inverse_problem.InverseProblem`.
        config: The effective configuration.
        weight: Initial lambda. A model of one's own has none.
        start: Weights of the prior to start from, or `None`.
    """
    if config.model not in MODELS:
        own = _function(config.model)
        return lambda: own(config)

    def build():
        layer = MODELS[config.model](problem.task, config, weight)
        steps = config.train.decay_steps or None
        inputs = problem.inputs()
        if _is_critic(config):
            made = dk.losses.Adversarial(inputs, layer(inputs))
        else:
            made = model(layer, inputs, problem.loss)
        take_weights(layer, start)
        loss = supervision.with_clean_images(config)
        return compiled(made, config.train.learning_rate, steps, loss)

    return build


def first_weight(problem, config, workdir, start=None):
    """The initial lambda: the same on all workers, for all find it on the same patches.

    Args:
        problem: An `experiments.inverse_problem.InverseProblem`.
        config: The effective configuration.
        workdir: Its working directory.
        start: As in `builder`.
    """
    if config.model not in MODELS:
        return None
    if config.train.weight is not None:
        return config.train.weight
    if config.model == "denoiser":
        return config[config.task].noise ** 2 or 0.01  # as for the density of noisy images
    if config.model == "proximal" or problem.loss is not None or goes_on(workdir):
        return 0.1  # there is none, or it would be tuned with clean images, or is in there
    # The equilibrium model is at first the same map, and this is the fastest way to solve for it.
    layer = bilevel(problem.task, config)
    model(layer, problem.inputs())
    take_weights(layer, start)
    return tune(layer, problem)["weight"]


def goes_on(workdir):
    """Whether there are checkpoints, from which a training goes on."""
    return any((Path(workdir) / "checkpoints").glob("*.index"))
