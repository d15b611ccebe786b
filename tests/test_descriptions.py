"""What objects say of themselves: `repr`, and the summary of a model."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk

MASK = dk.operators.random_mask((32, 48), keep=0.5)
EXPECTED = {
    "FieldsOfExperts(filters=8, kernel_size=(5, 3))": lambda: dk.priors.FieldsOfExperts(8, (5, 3)),
    "FieldsOfExperts()": lambda: dk.priors.FieldsOfExperts(),
    "UntiedFieldsOfExperts(hypomonotonicity=4.0, filters=8)": lambda: (
        dk.priors.UntiedFieldsOfExperts(8, hypomonotonicity=4.0)
    ),
    "TotalVariation(smoothing=0.1, name='tv')": lambda: dk.priors.TotalVariation(0.1, name="tv"),
    "TotalVariation(dtype='float64')": lambda: dk.priors.TotalVariation(dtype="float64"),
    "Mask(mask=<array of shape (32, 48)>)": lambda: dk.operators.Mask(MASK),
    "GaussianBlur(stddev=2.0)": lambda: dk.operators.GaussianBlur(stddev=2.0),
    "Compose(operators=[Mask(), GaussianBlur()])": lambda: (
        dk.operators.Mask() @ dk.operators.GaussianBlur()
    ),
    "GaussianNoise(stddev=0.1)": lambda: dk.operators.GaussianNoise(0.1),
    "Variational(operator=Identity(), prior=TotalVariation(), solver=Picard(damping=0.5), "
    "constraint=NonNegative())": lambda: dk.layers.Variational(
        dk.operators.Identity(),
        dk.priors.TotalVariation(),
        solver=dk.solvers.Picard(damping=0.5),
        constraint="non_negative",
    ),
    "Equilibrium(cell=GradientStep(operator=Identity(), prior=UntiedFieldsOfExperts(), "
    "weight=0.2))": lambda: dk.layers.Equilibrium(
        dk.layers.GradientStep(dk.operators.Identity(), dk.priors.UntiedFieldsOfExperts(), 0.2)
    ),
    "Equilibrium(cell=LayerCell(layer=<Functional>))": lambda: dk.layers.Equilibrium(network()),
}


def network():
    z, y = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    return keras.Model([z, y], y + 0.1 * dk.layers.Conv2D(1, 3, padding="same")(z))


@pytest.mark.parametrize("text", EXPECTED)
def test_layers_say_what_was_configured(text):
    assert repr(EXPECTED[text]()) == text


def test_classes_of_ones_own():
    class Plain(dk.priors.Prior):
        def __init__(self, factor, other=2.0, **kwargs):
            super().__init__(**kwargs)
            self.factor, self.other = factor, other

    assert repr(Plain(3.0)) == "Plain(factor=3.0)"  # Keras finds the arguments itself

    class Opaque(dk.operators.LinearOperator):
        def __init__(self, function):
            super().__init__()

    assert repr(Opaque(np.abs)).startswith("<Opaque") or repr(Opaque(np.abs)).startswith("Opaque(")


def test_half_made_objects_can_be_named():
    told = []

    class Early(dk.priors.Prior):
        def __init__(self):
            told.append(repr(self))
            super().__init__()

    Early()
    assert told == ["<Early>"]


def test_no_public_object_says_a_bare_name():
    """Whatever is public and configured has a `repr` of its own, not Keras's or Python's."""
    bare = {object.__repr__, keras.layers.Layer.__repr__}
    without = []
    for module in (dk.priors, dk.operators, dk.layers, dk.solvers, dk.linear_solvers, dk.adjoints):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) and value.__repr__ in bare:
                without.append(name)
    assert without == ["Conv2D", "Conv2DTranspose"]  # Keras's layers, under their own names


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # a name that is too long for its column is cut


def lines(model):
    printed = []
    model.summary(expand_nested=True, line_length=120, print_fn=lambda text: printed.append(text))
    return "\n".join(printed)


def test_summary_tells_operator_prior_and_parameters():
    blur = dk.operators.GaussianBlur(5, 1.0, name="blur")
    prior = dk.priors.FieldsOfExperts(8, 5, name="experts")
    options = {"solver": "picard", "adjoint": "jacobian_free"}  # the quickest to trace
    layer = dk.layers.Variational(blur, prior, name="bilevel", **options)
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    text = lines(model)
    for name, count in (("bilevel (Variational)", "234"), ("experts (FieldsOfExperts)", "208")):
        (line,) = (line for line in text.splitlines() if name in line)
        assert f" {count} " in line
    assert "blur (GaussianBlur)" in text
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)  # or a step of `fit` is traced twice
    model.fit(tf.ones((2, 16, 16, 1)), tf.ones((2, 16, 16, 1)), verbose=0)
    assert "experts (FieldsOfExperts)" in lines(model)


@pytest.mark.parametrize("prior", ["ridge", "learned", "total_variation"])
def test_summary_of_each_kind_of_prior(prior):
    made = {
        "ridge": lambda: dk.priors.RidgeRegularizer(filters=(2, 4)),
        "learned": lambda: dk.priors.LearnedGradient(keras.layers.Conv2D(1, 3, padding="same")),
        "total_variation": dk.priors.TotalVariation,
    }[prior]()
    cell = dk.layers.GradientStep(dk.operators.Identity(), made)
    image = keras.Input((24, 24, 1))
    model = keras.Model(image, dk.layers.Equilibrium(cell)(image))
    assert type(made).__name__ in lines(model)


def test_a_network_is_shown_within_its_cell():
    image = keras.Input((None, None, 1))
    model = keras.Model(image, dk.layers.Equilibrium(network())(image))
    text = lines(model)
    assert "LayerCell" in text
    assert "Conv2D" in text


def test_models_can_be_plotted():
    """pydot and Graphviz draw it where they are; the description they are given is Keras's."""
    pytest.importorskip("pydot")
    layer = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation())
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    dot = keras.utils.model_to_dot(model, show_shapes=True)
    assert "Variational" in dot.to_string()
