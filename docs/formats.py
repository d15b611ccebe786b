"""Prints the table of docs/formats.md: which models convert to which formats.

    python -m docs.formats [NAME...]

Each model is small and untrained, and is converted and compared as `--format` does it. All of them
take about ten minutes on two cores; names choose some.
"""

import sys
import tempfile

import keras

import deq_keras as dk
from trainers.export.formats import FORMATS, convert
from trainers.process.errors import ConfigurationError


def _prior(cls=dk.priors.FieldsOfExperts, **options):
    return cls(filters=8, kernel_size=5, sharpness=50.0, **options)


def _bilevel(operator=None, prior=None, solver="nesterov", **options):
    operator = operator or dk.operators.Identity()
    return dk.layers.Variational(operator, prior or _prior(), solver=solver, **options)


def _equilibrium(solver):
    prior = _prior(dk.priors.UntiedFieldsOfExperts)
    return dk.layers.Equilibrium(
        dk.layers.GradientStep(dk.operators.Identity(), prior), solver=solver
    )


# What is changed of: Nesterov, fields of experts, mirrored boundaries, grey, no operator.
MODELS = {
    "L-BFGS (the default of an energy)": lambda: _bilevel(solver="lbfgs"),
    "Nesterov": lambda: _bilevel(),
    "Picard": lambda: _bilevel(solver="picard"),
    "Anderson (the default of other maps)": lambda: _equilibrium("anderson"),
    "Broyden": lambda: _equilibrium("broyden"),
    "nonmonotone APG, `non_negative`": lambda: _bilevel(solver="auto", constraint="non_negative"),
    '`padding="circular"`': lambda: _bilevel(prior=_prior(padding="circular")),
    '`padding="zero"`': lambda: _bilevel(prior=_prior(padding="zero")),
    '`padding="valid"`': lambda: _bilevel(prior=_prior(padding="valid")),
    "colour": lambda: _bilevel(),
    "`TotalVariation`": lambda: _bilevel(prior=dk.priors.TotalVariation(0.05)),
    "`Huber`": lambda: _bilevel(fidelity="huber"),
    "`Mask`, masks as data": lambda: _bilevel(dk.operators.Mask()),
    "`GaussianBlur`": lambda: _bilevel(dk.operators.GaussianBlur(5, 1.0)),
    "`GaussianBlur`, mirrored": lambda: _bilevel(
        dk.operators.GaussianBlur(5, 1.0, padding="reflect")
    ),
    '`GaussianBlur`, `method="fft"`': lambda: _bilevel(
        dk.operators.GaussianBlur(5, 1.0, method="fft")
    ),
    "`Downsample`": lambda: _bilevel(dk.operators.Downsample(2)),
    "`FourierMask`, masks as data": lambda: _bilevel(dk.operators.FourierMask()),
}


def model(name):
    """The Keras model of a row."""
    layer = MODELS[name]()
    channels = 3 if name == "colour" else 1
    fourier = "Fourier" in name
    inputs = [keras.Input((None, None, channels), dtype="complex64" if fourier else "float32")]
    if "as data" in name:
        inputs.append(keras.Input((None, None, channels)))
    inputs = inputs[0] if len(inputs) == 1 else tuple(inputs)
    return keras.Model(inputs, layer(inputs))


def cell(name, format, folder):
    """What becomes of a model in a format: the largest difference, or the reason why not."""
    keras.utils.set_random_seed(0)
    size = (16, 18) if FORMATS[format].FIXED else None
    try:
        converted = convert(model(name), f"{folder}/model", format, size)
    except ConfigurationError as error:
        return f"no: {str(error).splitlines()[0].split('. ')[0]}"
    return f"{converted.difference:.0e}"


def main(names):
    """Prints a row for each model."""
    print("|", "model", "|", " | ".join(FORMATS), "|")
    print("|---|" + "---|" * len(FORMATS))
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            if not names or any(part in name for part in names):
                cells = [cell(name, format, folder) for format in FORMATS]
                print("|", name, "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
