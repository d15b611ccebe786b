"""What became of all files: a table, and the exit code."""

from rich.table import Table
from rich.text import Text

from experiments.restoration.errors import Refused, Unavailable
from trainers.process import exits

NOT_CONVERGED = 3  # exit code: all images are written, and for some the solver did not converge
_COLUMNS = ("file", "as", "tiles", "steps", "residual", "converged", "error bound")


def table(results):
    """A `rich` table of a list of `Done`, a row for each file.

    With tiles and channels a row has the most steps, the largest residual and error bound, and has
    converged if all of them have. An error bound that is an estimate is marked with `~`.
    """
    found = Table(title="Restored", title_justify="left")
    for column in _COLUMNS:
        found.add_column(column, overflow="fold")
    for done in results:
        if done.error is not None:
            found.add_row(_plain(done.name), "failed")
            continue
        one = done.restored
        found.add_row(
            _plain(done.name),
            done.how,
            str(one.tiles),
            str(one.steps),
            f"{one.residual:.1e}",
            "yes" if one.converged else "no",
            f"{'' if one.certified else '~'}{one.error_bound:.1e}",
        )
    return found


def failures(results):
    """A line for each file that failed."""
    for done in results:
        if done.error is not None:
            text = " ".join(str(done.error).split())
            if not isinstance(done.error, (Refused, Unavailable, OSError)):  # nobody worded it
                text = f"{type(done.error).__name__}: {text}"
            yield f"Failed: {done.name}: {text}"


def counts(results):
    """The counts, in words."""
    failed = sum(done.error is not None for done in results)
    stopped = sum(done.error is None and not done.restored.converged for done in results)
    return (
        f"{len(results) - failed} of {len(results)} restored; {failed} failed; "
        f"{stopped} did not converge."
    )


def exit_code(results):
    """0 if all are written and have converged; else the gravest code of `process.exits`.

    `UNAVAILABLE` if the server was lost on the way, `BAD_DATA` if an image failed otherwise,
    `NOT_CONVERGED` if all are written.
    """
    errors = [done.error for done in results if done.error is not None]
    if any(isinstance(error, Unavailable) for error in errors):
        return exits.UNAVAILABLE
    if any(isinstance(error, OSError) for error in errors):
        return exits.IO_ERROR
    if errors:
        return exits.BAD_DATA
    return 0 if all(done.restored.converged for done in results) else NOT_CONVERGED


def _plain(text):
    return Text(text)  # a name with [brackets] is no markup
