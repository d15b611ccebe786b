"""A preset or a denoiser from weights that their authors published for PyTorch.

    python -m experiments.convert --from=wcrr --weights=checkpoint_6000.pth \\
        --output=presets/wcrr --licence=MIT
    python -m experiments.convert --from=drunet --weights=drunet_gray.safetensors \\
        --output=drunet.keras

reads your own copy: a `.npz` or `.safetensors` file, or a `.pt` or `.pth` file if PyTorch is
installed. `crr`, `wcrr` and `tdv` become a preset, a folder for `deq_keras.presets.load` and
`experiments.transfer`, and `drunet` a Keras file of the denoiser. What they are made of is in
`deq_keras.presets.pytorch`.
"""

from pathlib import Path

from experiments import command_line

# isort: split
# It chooses Keras's backend, so it comes first.
from absl import flags

import deq_keras as dk
from experiments import program, tensor_files
from trainers.process import folder_flag
from trainers.process.errors import ConfigurationError
from trainers.process.files import make_writable

# Flags of its own: those that other programs share belong to training.

FLAGS = flags.FlagValues()
MODELS = {
    "crr": "Convex ridge regulariser of Goujon et al., IEEE TCI 2023",
    "wcrr": "Weakly convex ridge regulariser of Goujon et al., SIAM J. Imaging Sci. 2024",
    "tdv": "Total deep variation of Kobler et al., IEEE TPAMI 2021",
    "drunet": "DRUNet of Zhang et al., IEEE TPAMI 2022",
}
flags.DEFINE_bool("help", False, "Shows this.", flag_values=FLAGS)
_FROM = flags.DEFINE_enum("from", None, list(MODELS), "Which model it is.", flag_values=FLAGS)
_WEIGHTS = folder_flag.define("weights", None, "File of the weights.", flag_values=FLAGS)
_OUTPUT = folder_flag.define(
    "output", None, "Folder of the preset, or for drunet a .keras file.", flag_values=FLAGS
)
_LICENCE = flags.DEFINE_string("licence", None, "Of the weights, for the card.", flag_values=FLAGS)
_NOISE = flags.DEFINE_float(
    "noise", None, "Standard deviation in training, on [0, 1], for the card.", 0, flag_values=FLAGS
)
_WEIGHT = flags.DEFINE_float(
    "weight", 1.0, "Of the prior in denoising, for the card.", 0, flag_values=FLAGS
)
_WEAK_CONVEXITY = flags.DEFINE_float(
    "weak_convexity", 1.0, "wcrr: rho_wcvx of its configuration.", 0, flag_values=FLAGS
)


def convert():
    """Everything, from the flags to the files.

    Raises:
        ConfigurationError: If a flag is missing or does not fit, or the file cannot be read.
        ValueError: If the tensors are not those of the model.
    """
    wanted = {"from": _FROM, "weights": _WEIGHTS, "output": _OUTPUT}
    if _FROM.value != "drunet":
        wanted["licence"] = _LICENCE
    if missing := [f"--{name}" for name, flag in wanted.items() if not flag.value]:
        raise ConfigurationError(f"Expected {', '.join(wanted)}. Received no {missing}.")
    name, output = _FROM.value, Path(_OUTPUT.value)
    if (name == "drunet") != (output.suffix == ".keras"):
        what = "a .keras file for drunet" if name == "drunet" else f"a folder for {name}"
        raise ConfigurationError(f"Expected --output to be {what}. Received {str(output)!r}.")
    tensors = tensor_files.read(_WEIGHTS.value)
    options = {"weak_convexity": _WEAK_CONVEXITY.value} if name == "wcrr" else {}
    found = getattr(dk.presets.pytorch, name)(tensors, **options)
    make_writable(output.parent if name == "drunet" else output, "folder")
    if name == "drunet":
        found.save(output)
    else:
        dk.presets.save(found, output, _card(name, found))
    print(f"{MODELS[name]}: {found.count_params()} parameters, {output}")


def _card(name, prior):
    return {
        "description": f"{MODELS[name]}, converted from the weights of its authors",
        "channels": 1,
        "parameters": prior.count_params(),
        "weight": _WEIGHT.value,
        "noise": _NOISE.value,
        "data": "see the authors",
        "command": f"python -m experiments.convert --from={name}",
        "results": {},
        "time": "none",
        "licence": _LICENCE.value,
    }


def run():
    """Entry point: flags, then `convert`."""
    command_line.run(convert, program.parser_of(FLAGS, __doc__))


if __name__ == "__main__":
    run()
