"""Command lines of the programs: what all of them have in common.

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
from absl import app, flags, logging

from trainers.process.errors import ConfigurationError

WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder for results; a run is continued there.", required=True
)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of your own PNG or JPEG images.")


def parse(argv):
    """The flags, from a command line; a wrong one ends the program with a line that says so."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        wrong(f"{error} (--help lists the flags.)")


def wrong(message):
    """Ends a program whose command line is wrong, before it has begun."""
    print(f"Error: {message}", file=sys.stderr)
    raise SystemExit(exits.USAGE)


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

    def main(argv):
        if len(argv) > 1:
            raise app.UsageError(
                f"Unexpected arguments: {argv[1:]}. Options begin with --.", exits.USAGE
            )
        # The progress bar is for people; every model's first step would otherwise warn of tracing.
        logging.set_verbosity(logging.WARNING)
        tf.get_logger().setLevel("ERROR")
        with exits.exit_codes():
            work()

    app.run(main, flags_parser=parser)
