"""Priors and denoisers by name, and what their sections of a configuration may say."""

import pytest
from ml_collections import ConfigDict

import deq_keras as dk
from experiments.priors import denoiser, prior, prior_class
from trainers.process.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("fields_of_experts", dk.priors.FieldsOfExperts),
        ("affine_experts", dk.priors.AffineExperts),
        ("total_variation", dk.priors.TotalVariation),
        ("total_deep_variation", dk.priors.TotalDeepVariation),
        ("input_convex_network", dk.priors.InputConvexNetwork),
        ("multivariate_experts", dk.priors.MultivariateExperts),
        ("spline_ridge_regularizer", dk.priors.SplineRidgeRegularizer),
    ],
)
def test_every_prior_has_a_name(name, cls):
    assert prior_class(name) is cls
    untied = getattr(dk.priors, f"Untied{cls.__name__}", cls)
    assert type(prior(ConfigDict({"name": name}))) is cls
    assert type(prior(ConfigDict({"name": name}), tied=False)) is untied


def test_prior_has_the_arguments_of_its_section():
    section = ConfigDict({"name": "fields_of_experts", "filters": 3, "kernel_size": 5})
    made = prior(section)
    assert (made.filters, made.kernel_size) == (3, (5, 5))


@pytest.mark.parametrize("name", ["Prior", "untied_fields_of_experts", "potentials", ""])
def test_what_is_no_prior_has_none(name):
    with pytest.raises(ValueError, match=f"Unknown prior '{name}'.*'total_variation'"):
        prior_class(name)


@pytest.mark.parametrize("name", ["affine_experts", "total_variation"])
def test_a_limit_of_what_has_none_is_refused(name):
    section = ConfigDict({"name": name})
    with pytest.raises(ConfigurationError, match=r"train.hypomonotonicity=5.0: leave it out"):
        prior(section, tied=False, hypomonotonicity=5.0)
    fields = prior(ConfigDict({"name": "fields_of_experts"}), tied=False, hypomonotonicity=5.0)
    assert fields.hypomonotonicity == 5.0


UNET = {"name": "unet", "filters": (4, 6), "blocks": 1}


def test_a_denoiser_energy_has_the_denoiser_of_its_section():
    section = {"name": "denoiser_energy", "denoiser": {**UNET, "noise_map": True}}
    made = prior(ConfigDict({**section, "takes_noise_level": True}))
    assert isinstance(made, dk.priors.DenoiserEnergy)
    assert made.takes_noise_level
    assert made.denoiser.filters == (4, 6)
    assert made.denoiser.noise_map


def test_a_difference_has_the_two_priors_of_its_sections():
    parts = {
        name: {"name": "input_convex_network", "filters": (2,)} for name in ("first", "second")
    }
    parts["second"]["kernel_size"] = 3
    made = prior(ConfigDict({"name": "difference_of_convex", **parts}))
    assert made.first.filters == made.second.filters == (2,)
    assert (made.first.kernel_size, made.second.kernel_size) == ((5, 5), (3, 3))


def test_denoisers_have_names():
    assert denoiser(ConfigDict({"name": "dncnn", "depth": 2, "filters": 3})).count_params() == 54
    averaged = denoiser(ConfigDict({"name": "averaged_dncnn", "depth": 2, "share": 0.25}))
    assert averaged.share == 0.25


@pytest.mark.parametrize("name", ["at_noise_level", "u_net", ""])
def test_what_is_no_denoiser_has_none(name):
    with pytest.raises(ConfigurationError, match=f"Unknown denoiser '{name}'.*'unet'"):
        denoiser(ConfigDict({"name": name}))


def test_arguments_that_are_not_known_are_refused_wherever_they_are():
    with pytest.raises(ConfigurationError, match=r"The denoiser 'unet' takes.*also \['depth'\]"):
        prior(ConfigDict({"name": "denoiser_energy", "denoiser": {**UNET, "depth": 3}}))
    with pytest.raises(ConfigurationError, match=r"The prior 'total_deep_variation' takes"):
        prior(ConfigDict({"name": "total_deep_variation", "kernel_size": 3}))
