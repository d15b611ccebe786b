"""Signals become an exception, where the program wants it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainers.process.errors import Interrupted
from trainers.process.signals import interruptible

ROOT = Path(__file__).resolve().parents[3]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handlers():
    """Handlers of the test's own, which must be in place again afterwards."""

    def own(signum, frame):
        raise AssertionError("the signal came to the handler from before")

    previous = {s: signal.signal(s, own) for s in SIGNALS}
    yield own
    now = {signal.getsignal(s) for s in SIGNALS}
    for signum, handler in previous.items():
        signal.signal(signum, handler)
    assert now == {own}


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", SIGNALS)
def test_interruption_waits_for_a_check(handlers, signum):
    with interruptible() as received:
        received()
        assert received.signum is None
        send(signum)
        assert received.signum == signum
        with pytest.raises(Interrupted, match=signum.name) as caught:
            received()
    assert caught.value.signum == signum


def test_second_signal_is_obeyed_at_once(handlers):
    with interruptible() as received:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGINT"):
            send(signal.SIGINT)
        with pytest.raises(Interrupted, match="SIGTERM"):
            received()


def test_at_once_and_nested(handlers):
    with interruptible(at_once=True):
        with interruptible() as received:
            send(signal.SIGINT)
            with pytest.raises(Interrupted):
                received()
        with pytest.raises(Interrupted, match="SIGINT"):
            send(signal.SIGINT)


@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_handlers_come_back_after_an_error(handlers, error):
    def work(received):
        if error is Interrupted:
            send(signal.SIGTERM)
        received()
        raise RuntimeError("in between")

    with pytest.raises(error), interruptible() as received:
        work(received)


def test_handling_of_errors_does_not_take_an_interruption():
    assert not issubclass(Interrupted, Exception)


def test_signal_of_the_shell_ends_a_wait():
    """A program that sleeps in a library wakes up for SIGTERM, and ends with its code."""
    program = (
        "import time\n"
        "from trainers.process.exits import exit_codes\n"
        "from trainers.process.signals import interruptible\n"
        "with exit_codes(), interruptible(at_once=True):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    guard = threading.Timer(50, process.kill)
    guard.start()
    try:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, errors = process.communicate()
    finally:
        guard.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 75
    assert errors == "Stopped by SIGTERM. Run the same command again to go on.\n"
