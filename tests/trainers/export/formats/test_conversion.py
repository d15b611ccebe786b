"""Conversions to LiteRT, ONNX and OpenVINO: by the real converters, run by the real runtimes."""

import importlib.util

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from tests.variants import marked
from trainers.export.formats import FORMATS, conversion, convert, worker
from trainers.process.errors import ConfigurationError

SIZE = (10, 13)
slow = pytest.mark.slow


def needs(name):
    """The format, or a skip where its libraries are missing."""
    for library in FORMATS[name].LIBRARIES:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{name} needs {library} (the extra `export`)")
    return name


def prior(cls=dk.priors.FieldsOfExperts, **options):
    return cls(filters=4, kernel_size=5, sharpness=20.0, **options)


def bilevel(operator=None, solver="nesterov", **options):
    operator = operator or dk.operators.Identity()
    return dk.layers.Variational(operator, prior(**options), solver=solver)


def equilibrium(solver):
    learned = prior(dk.priors.UntiedFieldsOfExperts)
    cell = dk.layers.GradientStep(dk.operators.Identity(), learned)
    return dk.layers.Equilibrium(cell, solver=solver)


def model(layer, inputs=1, channels=1, dtype="float32"):
    y = [keras.Input((None, None, channels), dtype=dtype) for _ in range(inputs)]
    y = y[0] if inputs == 1 else tuple(y)
    return keras.Model(y, layer(y))


def size_for(name):
    return SIZE if FORMATS[name].FIXED else None


class Bessel(keras.layers.Layer):
    """An operation that none of the formats has."""

    def call(self, x):
        return tf.math.bessel_i0(x)


class Memory(keras.layers.Layer):
    """A loop whose variables move on: each round reads what three rounds before have left."""

    def call(self, x):
        def body(k, a, b, c):
            return k + 1, 0.5 * a + b - c + x, a, b

        loop = (tf.constant(0), x, 0.0 * x, x + 1.0)
        shapes = (tf.TensorShape([]), *[tf.TensorShape(x.shape)] * 3)
        _, a, b, c = tf.while_loop(lambda k, *_: k < 7, body, loop, shape_invariants=shapes)
        return a + 2.0 * b + 4.0 * c


@pytest.mark.parametrize("name", marked(FORMATS, ["litert"]))
def test_a_solver_over_a_mirrored_boundary(name, tmp_path):
    """The file alone has the names, the sizes and the values of the model, and no other is left.

    What is solved is behind a loop whose variables move on, which converters lose (see below).
    """
    layer, rng = bilevel(), np.random.default_rng(1)
    original = model(lambda y: layer(0.1 * Memory()(y)))
    # Of one size, for which the live model is traced; another follows below.
    samples = [[rng.uniform(size=(1, *SIZE, 1))]]
    file = tmp_path / "new" / "denoise"
    converted = convert(original, file, needs(name), size_for(name), samples)
    assert converted.difference < 1e-4
    assert converted.files[0].name == f"denoise{FORMATS[name].SUFFIX}"
    assert sorted(converted.files) == sorted((tmp_path / "new").iterdir())

    shape = (1, *SIZE, 1) if FORMATS[name].FIXED else (3, 9, 17, 1)
    y = rng.uniform(size=shape).astype("float32")
    (outputs,) = FORMATS[name].run(converted.files[0], [{"measurement": y}])
    assert set(outputs) == {"reconstruction", "steps", "residual", "converged"}
    assert outputs["converged"].dtype == bool
    assert outputs["converged"].tolist() == [True] * shape[0]
    np.testing.assert_allclose(outputs["reconstruction"], original(y), atol=1e-4)


@slow  # test_a_solver_over_a_mirrored_boundary has the same loop before its solver
@pytest.mark.parametrize("name", FORMATS)
def test_variables_of_loops_that_move_on(name, tmp_path):
    """LiteRT and OpenVINO lose them, silently, unless they are copied."""
    converted = convert(model(Memory()), tmp_path / "model", needs(name), size_for(name))
    assert converted.difference < 1e-4


@slow  # L-BFGS to LiteRT is the example of docs/formats.md, which tests/test_examples.py runs
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (lambda: bilevel(solver="auto"), 1),  # L-BFGS
        (lambda: bilevel(dk.operators.Mask()), 2),
        (lambda: bilevel(solver="picard"), 1),
        (lambda: bilevel(padding="circular"), 1),
        (lambda: bilevel(dk.operators.GaussianBlur(3, 0.8)), 1),
        (lambda: bilevel(dk.operators.Downsample(2)), 1),
    ],
    ids=["lbfgs", "mask", "picard", "circular", "blur", "downsample"],
)
def test_what_converts(name, layer, inputs, tmp_path):
    converted = convert(model(layer(), inputs), tmp_path / "model", needs(name), size_for(name))
    assert converted.difference < 3e-3  # ill-posed problems differ by what the tolerance allows


@slow
@pytest.mark.parametrize("name", ["litert", "openvino"])
def test_anderson_converts(name, tmp_path):
    original = model(equilibrium("anderson"))
    converted = convert(original, tmp_path / "model", needs(name), size_for(name))
    assert converted.difference < 3e-3


@slow
def test_anderson_has_an_operation_that_onnx_lacks(tmp_path):
    with pytest.raises(ConfigurationError, match="'onnx' cannot express Pack"):
        convert(model(equilibrium("anderson")), tmp_path / "model", needs("onnx"))


@pytest.mark.parametrize("name", marked(FORMATS, ["onnx"]))
def test_an_operation_that_a_format_lacks_is_named(name, tmp_path):
    """What was there before stays."""
    file = tmp_path / f"model{FORMATS[name].SUFFIX}"
    file.write_text("the model of before")
    with pytest.raises(ConfigurationError, match=f"'{name}' cannot express BesselI0"):
        convert(model(Bessel()), file, needs(name), size_for(name))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "the model of before"


def test_a_conversion_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "TIMEOUT", 0.05)
    with pytest.raises(ConfigurationError, match="failed .no end after"):
        convert(model(Bessel()), tmp_path / "model", needs("litert"), SIZE)
    assert not list(tmp_path.iterdir())


def test_samples_are_what_is_compared(tmp_path, monkeypatch):
    """Beyond [0, 1] as well: this one, of no real converter, is wrong there only."""

    def identity(format, folder, file):
        file.write_bytes(b"an identity")
        batches = worker.read_batches(folder / "inputs.npz")
        return [{"reconstruction": batch["measurement"]} for batch in batches]

    monkeypatch.setattr(conversion, "_run", identity)
    clipping = model(keras.layers.ReLU(max_value=2.0))
    inside = [[np.full((1, *SIZE, 1), 1.5)]]
    assert convert(clipping, tmp_path / "a", needs("litert"), SIZE, inside).difference == 0.0
    with pytest.raises(ConfigurationError, match="off the solution by 1 "):
        convert(clipping, tmp_path / "b", "litert", SIZE, [[np.full((1, *SIZE, 1), 3.0)]])
    assert [path.stem for path in tmp_path.iterdir()] == ["a"], "what is refused is not left"
    with pytest.raises(ConfigurationError, match=r"`measurement` of shape \(1, 10, 13, 1\)"):
        convert(clipping, tmp_path / "c", "litert", SIZE, [[np.zeros((2, *SIZE, 1))]])


def test_complex_measurements_are_refused(tmp_path):
    y = keras.Input((None, None, 1), dtype="complex64")
    mask = np.ones((8, 8))
    fourier = keras.Model(y, bilevel(dk.operators.FourierMask(mask))(y))
    with pytest.raises(ConfigurationError, match="measurement': 'complex64'"):
        convert(fourier, tmp_path / "model", needs("litert"), (8, 8))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("onx", None, "Did you mean 'onnx'"),
        ("litert", None, "Expected `size`, the height and width"),
        ("litert", (8, 0), "height and a width in pixels"),
    ],
)
def test_mistakes_are_explained(name, size, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        convert(model(Bessel()), tmp_path / "model", name, size)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(FORMATS["onnx"], "LIBRARIES", ("no_such_library",))
    with pytest.raises(ConfigurationError, match=r"no_such_library.*\[export\]"):
        convert(model(Bessel()), tmp_path / "model", "onnx")
