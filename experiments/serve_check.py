"""One request to a served model, and whether what comes back is what its card says.

    python -m experiments.serve_check --server=HOST:8500 --name=mine
    python -m experiments.serve_check --server=HOST:8500 --name=mine --card=models/mine/1

Sends a flat measurement to the signature `diagnose`, by the protocols of `experiments.restore`, and
looks at the answer: its shapes, whether all numbers are finite, and whether the solver converged.
With --card, the folder of the version that is served, it also looks whether the server takes what
that model takes. TensorFlow is not imported. The exit code is 0 if all is well, 3 if the solver did
not converge, 65 if the answer is wrong, 69 if there is no server, 78 if the model is another one.
"""

import json
import time
from pathlib import Path

import numpy as np
from absl import flags

from experiments import program
from experiments.restoration import connection, summary
from trainers.process import exits, folder_flag
from trainers.process.errors import ConfigurationError

# Flags of its own: those that other programs share belong to training.
FLAGS = flags.FlagValues()
flags.DEFINE_bool("help", False, "Shows this.", flag_values=FLAGS)
_SERVER = flags.DEFINE_string(
    "server", None, "HOST:PORT, maybe with grpc://, http:// or https://.", flag_values=FLAGS
)
_NAME = flags.DEFINE_string("name", None, "The model's name at the server.", flag_values=FLAGS)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "auto", ["auto", *connection.PROTOCOLS], "Of the server.", flag_values=FLAGS
)
_TIMEOUT = flags.DEFINE_float("timeout", 60.0, "Seconds to wait.", 0.1, flag_values=FLAGS)
_SIZE = flags.DEFINE_integer(
    "size", 32, "Height and width where the model takes any.", 1, flag_values=FLAGS
)
_CARD = folder_flag.define(
    "card", None, "The version of the exported model that is served.", flag_values=FLAGS
)


class WrongAnswer(ValueError):
    """A server that answers, and not as its model does."""

    exit_code = exits.BAD_DATA


def request(model, size):
    """A flat measurement of one image, of 0.5, and the operator's data, of ones."""

    def filled(name, value):
        spec = model.inputs[name]
        shape = [1, *(size if n is None else n for n in spec.shape[1:])]
        return np.full(shape, value).astype(spec.dtype)

    return filled("measurement", 0.5), {name: filled(name, 1.0) for name in model.data}


def check_card(model, folder):
    """Compares what the server takes with the card of an exported model.

    Raises:
        ConfigurationError: If there is no card, or it is that of another model.
    """
    path = Path(folder) / "assets.extra" / "model_card.json"
    try:
        card = json.loads(path.read_text("utf-8"))
        expected, version = card["signatures"]["diagnose"]["inputs"], card["versions"]["deq_keras"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"Expected --card to be a version of an exported model, with {path}. {error}"
        ) from None
    served = {name: _channels(spec.shape) for name, spec in model.inputs.items()}
    stated = {name: _channels(part["shape"]) for name, part in expected.items()}
    if served != stated:
        raise ConfigurationError(
            f"The model of the card takes {stated}, names and channels. The server takes {served}: "
            "it serves another model, or another version."
        )
    return f"{card['name']}, {card['task'] or 'no task'}, deq_keras {version}"


def _channels(shape):
    return shape[-1] if len(shape) == 4 else None


def check_answer(answer, measurement):
    """Raises `WrongAnswer` unless an answer is one for a measurement."""
    shapes = {name: value.shape for name, value in answer._asdict().items()}
    wrong = {n: s for n, s in shapes.items() if n != "reconstruction" and s != (1,)}
    image = shapes["reconstruction"]
    if wrong or len(image) != 4 or image[0] != len(measurement):
        raise WrongAnswer(
            f"Expected a row for one image. Received {wrong or {'reconstruction': image}}."
        )
    if not np.isfinite(answer.residual).all() or answer.steps[0] < 0:
        raise WrongAnswer(f"Received residual {answer.residual[0]} after {answer.steps[0]} steps.")


def check():
    """Everything, from the flags to what is printed."""
    if not _SERVER.value or not _NAME.value:
        raise ConfigurationError("Expected --server=HOST:PORT and --name, the model's name there.")
    model = connection.connect(_SERVER.value, _NAME.value, _PROTOCOL.value, _TIMEOUT.value)
    print(f"Model      {model.where}")
    if _CARD.value is not None:
        print(f"Card       {check_card(model, _CARD.value)}")
    measurement, data = request(model, _SIZE.value)
    begin = time.perf_counter()
    answer = model.diagnose(measurement, data)
    seconds = time.perf_counter() - begin
    check_answer(answer, measurement)
    converged = bool(answer.converged[0])
    print(f"Request    measurement {measurement.dtype} of shape {measurement.shape}")
    print(f"Answer     image of shape {answer.reconstruction.shape} in {seconds:.3f} s")
    print(f"Solver     {answer.steps[0]} steps, residual {answer.residual[0]:.1e}")
    print("Converged  " + ("yes" if converged else "no: it stopped at its most steps"))
    if not converged:
        raise SystemExit(summary.NOT_CONVERGED)


def run():
    """Entry point: flags, then `check`."""
    program.run(check, program.parser_of(FLAGS, __doc__))


if __name__ == "__main__":
    run()
