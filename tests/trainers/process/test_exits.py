"""How a program ends: a line on stderr and a code that says whether to start it again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.process import exits
from trainers.process.errors import (
    AddressTaken,
    ConfigurationError,
    Interrupted,
    NotFinite,
    PeerLost,
    StorageError,
)

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("USAGE", "BAD_DATA", "UNAVAILABLE", "SOFTWARE", "IO_ERROR", "STOPPED")
NAMES += ("CONFIG",)
ERRORS = [
    (ConfigurationError("wrong"), exits.CONFIG),
    (AddressTaken("wrong"), exits.UNAVAILABLE),
    (StorageError("wrong"), exits.IO_ERROR),
    (PeerLost("wrong"), exits.UNAVAILABLE),
    (NotFinite("wrong"), exits.BAD_DATA),
    # What comes from elsewhere.
    (ValueError("wrong"), exits.CONFIG),
    (FloatingPointError("wrong"), exits.BAD_DATA),
    (OSError("wrong"), exits.IO_ERROR),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda x: type(x).__name__)
def test_error_becomes_a_line_and_its_code(capsys, error, code):
    with pytest.raises(SystemExit) as caught, exits.exit_codes():
        raise error
    assert caught.value.code == code
    output = capsys.readouterr()
    assert output.err == "Error: wrong\n"
    assert output.out == ""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_interruption_says_how_to_go_on(capsys, signum):
    with pytest.raises(SystemExit) as caught, exits.exit_codes():
        raise Interrupted(signum)
    assert caught.value.code == exits.STOPPED
    expected = f"Stopped by {signum.name}. Run the same command again to go on.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), KeyboardInterrupt()])
def test_what_is_not_expected_is_not_hidden(error):
    with pytest.raises(type(error)) as caught, exits.exit_codes():
        raise error
    assert caught.value is error


def test_exit_of_the_program_itself_is_left_alone():
    with pytest.raises(SystemExit) as caught, exits.exit_codes():
        raise SystemExit(exits.USAGE)
    assert caught.value.code == exits.USAGE


def test_codes_differ_and_none_is_that_of_a_crash():
    codes = [getattr(exits, name) for name in NAMES]
    assert len(set(codes)) == len(codes)
    # 1 is Python's for an uncaught error; from 126 on they are the shell's, and signals.
    assert all(1 < code < 126 for code in codes)
    assert set(codes) >= exits.FINAL
    assert {exits.STOPPED, exits.UNAVAILABLE} == set(codes) - exits.FINAL


def test_documented_codes_are_the_codes():
    for name in NAMES:
        row = next(line for line in exits.__doc__.splitlines() if f"`{name}`" in line)
        code, _, _, again = (cell.strip() for cell in row.strip("|").split("|"))
        assert int(code) == getattr(exits, name)
        assert again.startswith("no") == (int(code) in exits.FINAL)


# A process that serves other workers must not wait for them on its way out. What would wait here
# is a function that Python calls at its end.
PROGRAM = """
import atexit, sys
from trainers.process import exits
from trainers.process.errors import PeerLost

atexit.register(print, "on its way out")
exits.serves = sys.argv[1] == "serves"
with exits.exit_codes():
    print("works")
    exec(sys.argv[2])
"""


@pytest.mark.parametrize("serves", ["serves", "alone"])
@pytest.mark.parametrize(
    ("action", "code", "error"),
    [
        ("pass", 0, ""),
        ("raise PeerLost('gone')", exits.UNAVAILABLE, "Error: gone\n"),
        ("raise KeyError('bug')", 1, "KeyError: 'bug'\n"),
    ],
)
def test_server_ends_at_once_and_what_it_printed_is_there(serves, action, code, error):
    # The pipe is no terminal, so what is printed waits in a buffer.
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, serves, action],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == code
    assert process.stdout == "works\n" + ("on its way out\n" if serves == "alone" else "")
    assert process.stderr.endswith(error)
    assert "Traceback" not in process.stderr or "bug" in error
