"""Flags that name a folder or a file: `~` is the home folder, after `=` as well."""

import os

from absl import flags

flags.disclaim_key_flags()  # they are flags of the module that defines them


class _Parser(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument):
        return os.path.expanduser(argument)


def define(name, default, help, **options):
    """As `absl.flags.DEFINE_string`; a shell leaves the `~` of `--workdir=~/runs` as it is.

    Args:
        name: The flag.
        default: Its value if it is not given.
        help: What it is.
        **options: Those of `absl.flags.DEFINE`.

    Example:

    >>> values = flags.FlagValues()
    >>> folder = define("folder", None, "A folder.", flag_values=values)
    >>> _ = values(["program", "--folder=~/runs"])
    >>> folder.value == os.path.expanduser("~/runs")
    True
    """
    return flags.DEFINE(
        _Parser(), name, default, help, serializer=flags.ArgumentSerializer(), **options
    )
