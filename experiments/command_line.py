"""Command lines of the programs that use TensorFlow: what all of them have in common.

Import this module before Keras: the library chooses Keras's backend, and says what is missing.
"""

import os
import sys

from trainers.process import exits

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import deq_keras  # noqa: F401
except (ImportError, RuntimeError) as problem:  # it has checked them, and says what to do
    print(f"Error: {problem}", file=sys.stderr)
    raise SystemExit(exits.CONFIG) from None
import tensorflow as tf

from experiments import program
from experiments.program import parse
from trainers.process import folder_flag
from trainers.process.errors import ConfigurationError

WORKDIR = folder_flag.define(
    "workdir", None, "Folder for results; a run is continued there.", required=True
)
DATA_DIR = folder_flag.define("data_dir", None, "Folder of your own images.")


def check_folders():
    """Refuses an empty name of a folder: an empty variable of a shell, say.

    Raises:
        ConfigurationError: If --workdir or --data_dir is empty.
    """
    for name, value in (("workdir", WORKDIR.value), ("data_dir", DATA_DIR.value)):
        if value is not None and not value.strip():
            raise ConfigurationError(
                f"Expected --{name} to be the name of a folder. Received {value!r}."
            )


def run(work, parser=parse):
    """The entry point of a program: flags, then `work()`, with the exit codes of `process.exits`.

    Args:
        work: A function without arguments.
        parser: From the command line to what remains of it.
    """

    def quiet():
        # Every model's first step would otherwise warn of tracing.
        tf.get_logger().setLevel("ERROR")
        work()

    program.run(quiet, parser)
