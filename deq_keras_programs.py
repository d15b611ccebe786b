#!/usr/bin/env python3
"""`deq-keras`: the programs of the package under one name.

    deq-keras train --workdir=runs/mine --data_dir=FOLDER
    deq-keras train --help

A sub-command is the program `experiments.NAME` of a checkout, with the flags that it has. This file
is installed, so that there is a command; the programs are not, since their names are too general:
they are looked for in the checkout of the library that is installed, and in the present folder. It
imports nothing but the standard library, so that `restore` needs no TensorFlow here either.
"""

import difflib
import importlib.util
import runpy
import sys
from importlib import metadata
from pathlib import Path

USAGE, CONFIG = 2, 78  # exit codes, as in trainers.process.exits

PROGRAMS = {
    "demo": ("compare", "train and compare both methods on photographs, into runs/demo"),
    "train": ("train", "train a model"),
    "evaluate": ("evaluate", "a trained model on test images"),
    "compare": ("compare", "train and compare several methods on several tasks"),
    "restore": ("restore", "restore images with an exported model, here or at a server"),
    "export": ("export", "write a trained model for servers"),
    "serve-check": ("serve_check", "one request to a served model: is its answer right?"),
    "transfer": ("transfer", "a trained prior on another task"),
    "reproduce": ("reproduce", "the experiments of the paper"),
    "preset": ("preset", "make a preset of a trained prior"),
    "convert": ("convert", "priors and denoisers from published PyTorch weights"),
}
_OURS = ("experiments/program.py", "trainers/process/exits.py", "deq_keras/_version.py")
_DEMO = {"--config": "experiments/configs/demo.py", "--workdir": "runs/demo"}


def main(argv=None):
    """Runs a sub-command; the exit code is that of its program.

    Args:
        argv: The command line without the name of the program; `None` for that of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USAGE
    name, *rest = arguments
    if name == "--version":
        print(version())
        return 0
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"Error: there is no {name!r}.{hint}\n\n{usage()}", file=sys.stderr)
        return USAGE
    folder = checkout()
    if folder is None:
        print(
            f"Error: `deq-keras {name}` runs the programs of a checkout, which are not installed "
            "with the library. Clone the repository and install it by `python -m pip install -e "
            '".[cpu,train,serve]"`, or call this in its folder; or take the image (docker/).',
            file=sys.stderr,
        )
        return CONFIG
    if name == "demo":
        given = {argument.split("=")[0] for argument in rest}
        values = {**_DEMO, "--config": str(folder / _DEMO["--config"])}
        rest = [f"{key}={value}" for key, value in values.items() if key not in given] + rest
    sys.path.insert(0, str(folder))
    sys.argv = [f"deq-keras {name}", *rest]
    runpy.run_module(f"experiments.{PROGRAMS[name][0]}", run_name="__main__", alter_sys=True)
    return 0


def usage():
    """What there is, for people."""
    lines = [f"  {name:12} {words}" for name, (_, words) in PROGRAMS.items()]
    last = "deq-keras COMMAND --help lists its flags."
    return "\n".join(["usage: deq-keras COMMAND [FLAGS]", "", *lines, "", last])


def version():
    """The version of the library that is installed, else of this checkout."""
    try:
        return metadata.version("deq_keras")
    except metadata.PackageNotFoundError:
        words = (Path(__file__).resolve().parent / "deq_keras" / "_version.py").read_text("utf-8")
        return words.split('"')[-2]


def checkout():
    """The folder with the programs, or `None`: where the library is, or where this is called."""
    spec = importlib.util.find_spec("deq_keras")
    installed = [Path(spec.origin).resolve().parents[1]] if spec and spec.origin else []
    for folder in (*installed, Path.cwd()):
        # There may be a package of the same name that belongs to somebody else.
        if all((folder / name).is_file() for name in _OURS):
            return folder
    return None


if __name__ == "__main__":
    sys.exit(main())
