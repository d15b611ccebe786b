"""The flag `--config`: a file with `get_config()`, and overrides of its entries."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import program

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File with a `get_config()`; --config.KEY=VALUE overrides an entry."
)
FOLDER = Path(__file__).parent / "configs"


def parse(argv, default):
    """The flags, from a command line, with the configuration of a file in `configs` as a default.

    A wrong flag, or an entry that is not in the configuration, ends the program with a line.
    """
    try:
        # Overrides are looked up here already, and again when a --config is parsed.
        flags.set_default(CONFIG, str(FOLDER / default))
        arguments = program.parse(argv)
        _ = CONFIG.value.keys()  # a file that could not be read says so now
        return arguments
    except (AttributeError, KeyError) as error:
        inner = error
        while inner.args and isinstance(inner.args[0], Exception):
            inner = inner.args[0]
        name = ". ".join(str(inner.args[0]).splitlines())
        if not name.startswith("'"):
            raise  # of the configuration file itself
        program.wrong(f"The configuration has no entry {name}")
    except OSError as error:
        program.wrong(f"--config cannot be read. {' '.join(str(error).split())}")
