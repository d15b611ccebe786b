"""Exit codes of the programs: whether starting the same command again makes sense.

They follow BSD's `sysexits.h`, so that they mean the same to people, launchers and schedulers.

| code | name | what happened | again? |
|---|---|---|---|
| 0 | | finished | |
| 2 | `USAGE` | a wrong flag (absl and argparse use this code) | no |
| 65 | `BAD_DATA` | numbers that are not finite, images that cannot be read or restored | no |
| 69 | `UNAVAILABLE` | a worker or a server did not come up, or was lost on the way | yes |
| 70 | `SOFTWARE` | an export that does not answer as its model does; nothing was written | no |
| 74 | `IO_ERROR` | a full disk, a folder that cannot be written, a damaged checkpoint | no |
| 75 | `STOPPED` | stopped by SIGTERM or SIGINT, the state is saved | yes: goes on where it was |
| 78 | `CONFIG` | a configuration, cluster or checkpoint that does not fit | no |

Any other code, and death by a signal, is a crash: started again, the run goes on from its last
checkpoint.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator

USAGE = 2
BAD_DATA = 65
UNAVAILABLE = 69
SOFTWARE = 70
IO_ERROR = 74
STOPPED = 75
CONFIG = 78

# The same command would fail in the same way.
FINAL = frozenset({USAGE, BAD_DATA, SOFTWARE, IO_ERROR, CONFIG})


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Around a program's work: an error becomes a line on stderr and the code of its kind.

    Raises:
        SystemExit: With that code. Where this process serves other workers it ends at once instead:
            on Python's way out TensorFlow's servers would wait for workers that have gone.
    """
    # Ours name their own code; these are what comes from elsewhere.
    others = {ValueError: CONFIG, FloatingPointError: BAD_DATA, OSError: IO_ERROR}
    try:
        yield
    except BaseException as error:
        kinds = (code for kind, code in others.items() if isinstance(error, kind))
        code = getattr(error, "exit_code", None) or next(kinds, None)
        if code is not None:
            again = " Run the same command again to go on." if code == STOPPED else ""
            print(f"{'' if again else 'Error: '}{error}{again}", file=sys.stderr)
            leave(code)
            raise SystemExit(code) from None
        if serves:
            traceback.print_exc()
            leave(1)
        raise
    leave(0)


serves = False  # set where a server for other workers is started


def leave(code: int) -> None:
    """End the process at once if it serves other workers."""
    if serves:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
