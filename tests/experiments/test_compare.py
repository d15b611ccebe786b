"""What `experiments.compare` does before and after the training: arguments, table, endings."""

import io
import re
import signal

import keras
import pytest
import tensorflow as tf
from rich.console import Console

import deq_keras as dk
from experiments import compare, comparison, models
from experiments.configs import demo
from trainers.callbacks.tensorboard import TensorBoard
from trainers.process import exits
from trainers.process.errors import Interrupted, NotFinite, StorageError
from trainers.training import Trainer

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

TINY = (
    "--config.data.patch_size=12",
    "--config.prior.filters=2",
    "--config.prior.kernel_size=3",
    "--config.train.batch_size=2",
    "--tasks=denoising",
)


@pytest.fixture
def config(run_program, monkeypatch):
    """The effective configuration of a command line."""
    found = []
    monkeypatch.setattr(compare, "compare", lambda: found.append(compare.effective_config()))

    def effective(*arguments):
        assert run_program(compare, "--workdir=unused", *arguments) == 0
        return found.pop()

    return effective


# Arguments


def test_flags_take_the_place_of_entries(config):
    changed = config(
        "--steps=7",
        "--tasks=deblurring,denoising",
        "--data_dir=x",
        "--seed=5",
        "--config.prior.filters=3",
    )
    expected = demo.get_config()
    expected.train.steps = expected.train.further_steps = 7
    expected.tasks = ("deblurring", "denoising")
    expected.data.name, expected.data.data_dir = "folder", "x"
    expected.seed = 5
    expected.prior.filters = 3
    assert changed.to_dict() == expected.to_dict()
    assert changed.is_locked


def test_without_flags_it_is_the_configuration_of_the_file(config):
    assert config().to_dict() == demo.get_config().to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks="], "at least one task"),
        (["--tasks=denoisin"], "Did you mean 'denoising'"),
        (["--config.prior.name=field_of_experts"], "Did you mean 'fields_of_experts'"),
        (
            ["--config.prior.name=total_variation"],
            r"arguments \['smoothing', 'train_smoothing'\]\. Received also \['activation'",
        ),
        (["--config.denoising.noise=-0.1"], r"denoising\.noise, .* >= 0\. Received -0\.1"),
        (["--tasks=inpainting", "--config.inpainting.keep=1.5"], r"inpainting\.keep <= 1"),
        (["--tasks=deblurring", "--config.deblurring.stddev=-1"], "stddev"),
        (["--config.train.steps=0"], r"train\.steps >= 1\. Received 0"),
        (["--config.train.further_steps=-3"], r"train\.further_steps >= 1"),
        (["--config.train.batch_size=0"], r"train\.batch_size >= 1"),
        (["--config.train.learning_rate=0"], r"train\.learning_rate to be finite and > 0"),
        (["--config.train.further_learning_rate=nan"], r"train\.further_learning_rate .*nan"),
        (["--config.train.tolerance=-1"], "tolerance"),
        (["--config.train.adjoint_tolerance=0"], "tolerance"),
        (["--config.evaluate.training_batches=0"], r"evaluate\.training_batches >= 1"),
        (["--config.evaluate.pictures=-1"], r"evaluate\.pictures >= 0"),
        (["--config.total_variation.smoothing=0"], "smoothing"),
        (["--config.prior.activation=tan"], "'tan'.*tanh"),
        (["--config.prior.filters=0"], "filters"),
        (["--config.prior.sharpness=-5"], "sharpness"),
        (["--config.seed=-1"], r"0 <= seed"),
        (["--config.seed=4294967296"], r"seed < 2\*\*32"),
        (["--config.data.channels=2"], "channels"),
        (["--config.data.max_side=10"], r"`patch_size` is 12, larger than .*'\d\.png'"),
        (["--config.data.patch_size=24"], r"larger than .*'\d\.png' \(2\d x 2\d\)"),
        (["--config.data.patch_size=0"], "patch_size"),
        (
            ["--config.data.max_side=10", "--config.data.patch_size=8"],
            r"test images of at least 11 pixels.*Received '\d\.png' of \d+ x \d+",
        ),
        (["--data_dir="], "--data_dir to be the name of a folder. Received ''"),
        (["--data_dir=no/such/folder"], "'no/such/folder', which does not exist"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_arguments_end_before_any_work(program, tmp_path, pictures, arguments, message):
    folder = tmp_path / "run"
    data = f"--data_dir={pictures}"
    ended = program(compare, f"--workdir={folder}", *TINY, data, *arguments)
    assert re.fullmatch(f"Error: .*{message}.*\n", ended.errors)
    assert ended.code in (exits.CONFIG, exits.BAD_DATA)
    assert not folder.exists() or not list(folder.iterdir())


def test_misspelt_entry_has_a_near_match(program, tmp_path):
    ended = program(compare, f"--workdir={tmp_path}", "--config.train.stepz=3")
    assert ended.code == exits.USAGE
    assert re.search(r"no entry 'stepz'\. Did you mean \"steps\" instead", ended.errors)


@pytest.mark.parametrize(
    "argument", ["--steps=0", "--steps=many", "--stepz=3", "--seed=-1", "--config.train.steps=1.5"]
)
def test_misspelt_flags_and_values_name_themselves(program, tmp_path, argument):
    ended = program(compare, f"--workdir={tmp_path}", argument)
    assert ended.code == exits.USAGE
    assert argument.split("=")[0].lstrip("-") in ended.errors


def test_arguments_that_are_no_options_are_refused(program, tmp_path):
    ended = program(compare, f"--workdir={tmp_path}", "denoising")
    assert ended.code == exits.USAGE
    assert "Unexpected arguments: ['denoising']" in ended.output + ended.errors


def test_configuration_file_that_is_not_there(program, tmp_path):
    ended = program(compare, f"--config={tmp_path}/none.py", f"--workdir={tmp_path}")
    assert ended.code == exits.USAGE
    assert "none.py" in ended.errors


def test_configuration_of_another_program(program, tmp_path):
    other = demo.__file__.replace("demo.py", "train_demo.py")
    ended = program(compare, f"--config={other}", f"--workdir={tmp_path / 'run'}")
    assert ended.code == exits.CONFIG
    assert "a configuration of experiments.compare. Received one without" in ended.errors


def test_folder_without_pictures(program, tmp_path):
    (tmp_path / "empty").mkdir()
    data = f"--data_dir={tmp_path / 'empty'}"
    ended = program(compare, f"--workdir={tmp_path / 'run'}", data, *TINY)
    assert ended.code == exits.BAD_DATA
    assert re.search("No picture found in data_dir='.*empty'", ended.errors)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_corrupt_picture_is_named(program, tmp_path, pictures, damage):
    path = pictures / "3.png"
    path.write_bytes(path.read_bytes()[:300] if damage == "cut" else b"no picture")
    ended = program(compare, f"--workdir={tmp_path / 'run'}", f"--data_dir={pictures}", *TINY)
    assert ended.code == exits.BAD_DATA
    assert "3.png: cannot be read" in ended.errors


# Endings


@pytest.fixture
def ending(program, tmp_path, pictures, monkeypatch):
    """Runs it with another function in place of all stages of a task."""

    def run(stages_of_a_task, *arguments):
        monkeypatch.setattr(compare, "compare_task", stages_of_a_task)
        workdir, data = f"--workdir={tmp_path / 'run'}", f"--data_dir={pictures}"
        return program(compare, workdir, data, *TINY, *arguments)

    return run


def raising(error):
    def compare_task(work):
        work.workspace.folder(work.task.name)
        raise error

    return compare_task


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["between steps", "outside of training"])
def test_stopped_by_a_signal(ending, signum, how):
    previous = signal.getsignal(signum)

    def outside(work):
        signal.raise_signal(signum)
        raise AssertionError("it went on")

    ended = ending(outside if how == "outside of training" else raising(Interrupted(signum)))
    assert ended.code == exits.STOPPED
    assert ended.errors == f"Stopped by {signum.name}. Run the same command again to go on.\n"
    assert signal.getsignal(signum) == previous


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFinite("The loss became nan"), exits.BAD_DATA),
        (StorageError("The disk is full"), exits.IO_ERROR),
        (OSError(28, "No space left on device"), exits.IO_ERROR),
    ],
)
def test_failures_that_a_person_can_mend_have_no_traceback(ending, error, code):
    ended = ending(raising(error))
    assert ended.code == code
    assert ended.errors == f"Error: {error}\n"


def test_mistakes_of_the_program_have_one(ending):
    with pytest.raises(KeyError, match="steps"):
        ending(raising(KeyError("steps")))


def test_folder_of_another_configuration(ending, tmp_path):
    assert "full" in ending(raising(OSError("full"))).errors
    before = (tmp_path / "run" / "config.json").read_text()
    ended = ending(raising(AssertionError("it began")), "--config.train.learning_rate=0.5")
    assert ended.code == exits.CONFIG
    message = r"another configuration \(train\.learning_rate was 0\.03, is 0\.5\).* --workdir"
    assert re.search(message, ended.errors)
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_wrong_arguments_can_be_mended_in_the_same_folder(ending):
    ended = ending(raising(AssertionError("it began")), "--config.data.patch_size=100")
    assert "patch_size" in ended.errors
    assert "full" in ending(raising(OSError("full"))).errors


# What a layer reports of a training


def test_diagnostics_go_from_the_layer_into_history_tensorboard_and_results(tmp_path):
    prior = dk.priors.FieldsOfExperts(filters=3, kernel_size=3, sharpness=8.0)
    layer = dk.layers.Variational(dk.operators.Identity(), prior, name="bilevel")
    images = tf.random.stateless_uniform((2, 2, 8, 8, 1), (0, 0))
    model = models.model(layer, keras.Input((None, None, 1)))
    trainer = Trainer(lambda: models.compiled(model, 0.01, 2), tmp_path)
    history = trainer.fit(
        tf.data.Dataset.from_tensor_slices((images, images / 2)),
        epochs=1,
        steps_per_epoch=2,
        callbacks=[TensorBoard(tmp_path / "board", lambda: trainer.position.step)],
        verbose=0,
    )
    found = comparison.diagnostics({"history": history}, "bilevel")
    assert found["backward_steps"] > 0
    assert found["training_forward_steps"] > 1
    assert found["training_converged"] == found["training_backward_converged"] == 1.0
    for key in ("forward_residual", "backward_residual"):
        assert 0 < found[f"training_{key}"] <= 1e-5
    # The modulus is that of the misfit, 1: the bound is the norm of the gradient, for a pixel.
    assert 0 < found["training_error_bound"] <= 1e-5
    written = b"".join(p.read_bytes() for p in (tmp_path / "board").iterdir())
    for name in ("forward_steps", "backward_residual", "converged", "error_bound"):
        assert f"epoch/bilevel_{name}".encode() in written


def test_diagnostics_without_a_certificate_are_none():
    names = ("backward_steps", "converged", "forward_steps", "backward_converged")
    last = {f"equilibrium_{name}": 1.0 for name in names} | {"equilibrium_error_bound": None}
    found = comparison.diagnostics({"history": [last]}, "equilibrium")
    assert found["training_error_bound"] is None
    assert found["training_forward_steps"] == 1.0


# The table

ROW = {
    "label": "Bilevel",
    "psnr": 26.314,
    "ssim": 0.70477,
    "train_loss": 3.7713e-3,
    "test_loss": 2.3819e-3,
    "seconds": 61.4,
    "solve_seconds": 0.0442,
    "forward_steps": 58.33,
    "backward_steps": 7.84,
    "converged": 2 / 3,
    "parameters": 625,
}


def printed(results, width=160):
    output = io.StringIO()
    compare.print_table(results, Console(file=output, width=width))
    return output.getvalue()


def test_table_shows_every_number_and_a_dash_where_there_is_none():
    nothing = {key: None for key in ROW} | {"label": "Measurement"}
    methods = {"measurement": nothing, "bilevel": ROW}
    text = printed({"tasks": {"denoising": {"title": "Denoising", "methods": methods}}})
    rows = {
        cells[1]: cells[2:-1]
        for cells in ([c.strip() for c in line.split("│")] for line in text.splitlines())
        if len(cells) > 2
    }
    assert rows == {
        "Measurement": ["-"] * 10,
        "Bilevel": "26.31 0.7048 3.771e-03 2.382e-03 61 0.04 58 7.8 67% 625".split(),
    }
    assert text.startswith("Denoising")


def test_each_task_has_a_table():
    tasks = {name: {"title": name.title(), "methods": {"bilevel": ROW}} for name in ("one", "two")}
    text = printed({"tasks": tasks})
    assert text.index("One") < text.index("Two")
    assert text.count("26.31") >= 2
