"""Entry point of a program: flags and exit codes. It imports neither TensorFlow nor Keras."""

import contextlib
import sys
import warnings

from absl import app, flags, logging

from trainers.process import exits


def parse(argv):
    """The flags, from a command line; a wrong one ends the program with a line that says so."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        wrong(f"{error} (--help lists the flags.)")


def parser_of(own, text):
    """A parser like `parse`, of flags of a program's own, which has few and not those of absl.

    Args:
        own: A `flags.FlagValues`, with a flag `help`.
        text: What the help says before the list of flags.
    """

    def parse_own(argv):
        try:
            remaining = own(argv)
        except flags.Error as error:
            wrong(f"{error} (--help lists the flags.)")
        flags.FLAGS.mark_as_parsed()  # absl asks for it; none of its own flags is used
        if own.help:
            print(f"{text}\n{own.get_help()}")
            raise SystemExit(0)
        return remaining

    return parse_own


def wrong(message):
    """Ends a program whose command line is wrong, before it has begun."""
    print(f"Error: {message}", file=sys.stderr)
    raise SystemExit(exits.USAGE)


def run(work, parser=parse, positional=False):
    """Flags, then `work()`, with the exit codes of `trainers.process.exits`.

    Args:
        work: A function; `work(arguments)` if the program has arguments that are not flags.
        parser: From the command line to what remains of it.
        positional: Whether the program has such arguments.
    """

    def main(argv):
        if len(argv) > 1 and not positional:
            raise app.UsageError(
                f"Unexpected arguments: {argv[1:]}. Options begin with --.", exits.USAGE
            )
        logging.set_verbosity(logging.WARNING)  # the progress bar is for people
        with exits.exit_codes(), _warnings_for_people():
            work(argv[1:]) if positional else work()

    app.run(main, flags_parser=parser)


@contextlib.contextmanager
def _warnings_for_people():
    """What a person is warned of as a line of its own, without the place in the sources."""
    usual = warnings.formatwarning

    def line(message, category, *where):
        if issubclass(category, UserWarning):
            return f"Warning: {message}\n"
        return usual(message, category, *where)

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = usual
