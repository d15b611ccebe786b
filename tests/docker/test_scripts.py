"""The scripts of docker/, run as they are: health check, exit codes, and what Slurm is told."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainers.process import exits

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SECONDS = 60  # at most, for a script


def _run(*command, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


def _health(**environment):
    return _run(sys.executable, str(DOCKER / "healthcheck.py"), **environment)


@pytest.fixture
def heartbeat(tmp_path):
    path = tmp_path / "heartbeat"
    path.touch()
    return path


def _make_old(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_training_that_makes_steps_is_healthy(heartbeat):
    _make_old(heartbeat, 300)
    assert _health(DEQ_KERAS_HEARTBEAT=str(heartbeat)).returncode == 0


def test_a_training_that_hangs_is_not(heartbeat):
    _make_old(heartbeat, 1200)
    done = _health(DEQ_KERAS_HEARTBEAT=str(heartbeat))
    assert done.returncode == 1
    assert re.search(r"12\d\d s ago; at most 900 s", done.stderr)
    done = _health(DEQ_KERAS_HEARTBEAT=str(heartbeat), DEQ_KERAS_HEARTBEAT_LIMIT="3600")
    assert done.returncode == 0


def test_what_is_no_training_is_healthy(tmp_path):
    assert _health(DEQ_KERAS_HEARTBEAT=str(tmp_path / "none")).returncode == 0
    assert _health(DEQ_KERAS_HEARTBEAT="").returncode == 0


def test_a_limit_that_is_no_number_is_named(heartbeat):
    done = _health(DEQ_KERAS_HEARTBEAT=str(heartbeat), DEQ_KERAS_HEARTBEAT_LIMIT="15m")
    assert done.returncode == 1
    assert "number of seconds. Received: '15m'" in done.stderr


def _retryable():
    spec = importlib.util.spec_from_file_location("retryable", DOCKER / "retryable.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_operator_starts_again_what_makes_sense_to_start_again():
    translate = _retryable().translate
    assert translate(0) == 0
    for code in exits.FINAL:
        assert translate(code) == code
    for code in set(range(1, 256)) - exits.FINAL:
        assert 128 <= translate(code) <= 255, code
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        assert translate(-number) == 128 + number


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_reaches_the_command_and_its_code_comes_back():
    command = [sys.executable, str(DOCKER / "retryable.py"), "--", sys.executable, "-c", CHILD]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.terminate()
            assert process.wait(SECONDS) == 128 + signal.SIGTERM
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (78, 78), (69, 138), (75, 143)])
def test_codes_of_a_command(code, expected):
    script = (sys.executable, str(DOCKER / "retryable.py"), "--pause=0", "--")
    done = _run(*script, sys.executable, "-c", f"raise SystemExit({code})")
    assert done.returncode == expected, done.stderr


def test_a_command_that_is_not_there_is_final():
    done = _run(sys.executable, str(DOCKER / "retryable.py"), "--", "no-such-program")
    assert done.returncode == exits.USAGE
    assert "cannot run 'no-such-program'" in done.stderr


@pytest.fixture
def slurm(tmp_path):
    """Runs the script with stand-ins for Slurm's commands; returns what it did."""
    for name, text in {
        "srun": f'echo "$*" >> "{tmp_path}/srun"; exit "$CODE"',
        "scontrol": f'echo "$*" >> "{tmp_path}/scontrol"',
        "sleep": "",
    }.items():
        (tmp_path / name).with_suffix(".sh").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).with_suffix(".sh").chmod(0o755)
    folder = tmp_path / "bin"
    folder.mkdir()
    for script in tmp_path.glob("*.sh"):
        script.rename(folder / script.stem)

    def run(code, restarts=0):
        done = _run(
            "bash",
            str(DOCKER / "slurm.sh"),
            CODE=str(code),
            PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
            SLURM_SUBMIT_DIR=str(ROOT),
            SLURM_JOB_ID="7",
            SLURM_CPUS_PER_TASK="4",
            SLURM_RESTART_COUNT=str(restarts),
            DATA_DIR="a folder",
        )
        calls = tmp_path / "scontrol"
        return done, calls.exists() and calls.read_text() == "requeue 7\n"

    run.arguments = lambda: (tmp_path / "srun").read_text()
    return run


def test_slurm_ends_a_finished_job(slurm):
    done, again = slurm(0)
    assert done.returncode == 0, done.stderr
    assert not again
    assert "--data_dir=a folder --strategy=multi_worker" in slurm.arguments()


@pytest.mark.parametrize("code", sorted(exits.FINAL))
def test_slurm_does_not_repeat_a_final_error(slurm, code):
    done, again = slurm(code)
    assert done.returncode == code
    assert not again


@pytest.mark.parametrize("code", [1, exits.UNAVAILABLE, 128 + signal.SIGKILL])
def test_slurm_repeats_a_crash_but_not_for_ever(slurm, code):
    assert slurm(code)[1]
    done, _ = slurm(code, restarts=10)
    assert "not queued again" in done.stdout


def test_slurm_goes_on_with_a_stopped_job_however_often(slurm):
    assert slurm(exits.STOPPED, restarts=99)[1]


def test_slurm_wants_to_know_where_the_images_are():
    done = _run("bash", str(DOCKER / "slurm.sh"), SLURM_SUBMIT_DIR=str(ROOT), DATA_DIR="")
    assert done.returncode != 0
    assert "DATA_DIR: name the folder" in done.stderr
