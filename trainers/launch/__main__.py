"""Launcher of the workers of one training on this machine, again when one is lost.

    python -m trainers.launch --num_workers=2 -- python -m PROGRAM --strategy=multi_worker ARGS...

Each worker runs COMMAND with a `TF_CONFIG` of its own, on free ports of 127.0.0.1. When one of them
dies or hangs, all are started again, and go on from their last checkpoint. A wrong flag, a
configuration that does not fit and the like (see `trainers.process.exits`) end the run at once.
SIGTERM, SIGINT and SIGHUP are passed on to the workers as SIGTERM; a second one kills them. However
this program ends, by SIGKILL too, its workers and what they have started end with it.

Exit code: 0 if all workers finished; 75 if they were stopped and have saved (run the same command
again to go on); the code of the worker that failed otherwise, 128 + number if it died by a signal.
"""

import sys

from absl import app, flags

from trainers.launch.launcher import Launcher
from trainers.process import folder_flag
from trainers.process.exits import IO_ERROR, USAGE

_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Number of processes.", lower_bound=1, required=True
)
_MAX_RESTARTS = flags.DEFINE_integer(
    "max_restarts", 3, "How often all workers may be started again.", lower_bound=0
)
_HANG_TIMEOUT = flags.DEFINE_float(
    "hang_timeout",
    300.0,
    "Seconds without a heartbeat after which a worker that has given some is hung; must be longer "
    "than its longest pause between two of them. 0: never.",
    lower_bound=0.0,
)
_GRACE = flags.DEFINE_float(
    "grace", 30.0, "Seconds that workers have to save and end after SIGTERM.", lower_bound=0.0
)
_THREADS = flags.DEFINE_integer(
    "threads",
    None,
    "Threads of each worker. If not given, what the environment says, or else the cores divided by "
    "the number of workers.",
    lower_bound=1,
)
_LOG_DIR = folder_flag.define(
    "log_dir",
    None,
    "Folder for what each worker prints, unaltered, in worker-<index>.log.",
    allow_override=True,  # absl has one for its own log files, of which there are none here
)


def _parse(argv):
    """The command line without the flags; a wrong flag ends with `USAGE`, absl itself says 1."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"FATAL Flags parsing error: {error}\nTry --help.", file=sys.stderr)
        sys.exit(USAGE)


def main(argv):
    if not argv[1:]:
        raise app.UsageError("Expected `-- COMMAND ARGS...` after the flags.", exitcode=USAGE)
    if _LOG_DIR.value is not None and not _LOG_DIR.value.strip():
        raise app.UsageError("Expected --log_dir to be the name of a folder.", exitcode=USAGE)
    try:
        launcher = Launcher(
            argv[1:],
            _NUM_WORKERS.value,
            max_restarts=_MAX_RESTARTS.value,
            hang_timeout=_HANG_TIMEOUT.value,
            grace=_GRACE.value,
            threads=_THREADS.value,
            log_dir=_LOG_DIR.value,
        )
    except ValueError as error:
        raise app.UsageError(str(error), exitcode=USAGE) from error
    try:
        return launcher.run()
    except OSError as error:  # a folder that cannot be written, no more processes
        print(f"[launch] Error: {error}", file=sys.stderr)
        return IO_ERROR


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
