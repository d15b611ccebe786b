"""The launcher with real processes and real signals; the workers are scripts of a few lines."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.variants import marked
from trainers.launch import Launcher
from trainers.launch.launcher import ECHO
from trainers.launch.output import BAR_SECONDS, LONGEST_LINE, Console, Lines
from trainers.launch.worker import (
    EXIT_NAMES,
    THREADS,
    Worker,
    environment,
    free_addresses,
)
from trainers.process.exits import CONFIG, FINAL, IO_ERROR, STOPPED, UNAVAILABLE, USAGE
from trainers.process.heartbeat import HEARTBEAT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 60  # seconds, on a machine that does much else; nothing here waits that long by itself

# What every script begins with. Its argument is a folder; there it leaves its process id under the
# numbers of worker and attempt.
PRELUDE = f"""
import json, os, signal, subprocess, sys, time
folder = sys.argv[1]
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
attempt = sum(name.startswith(f"pid-{{index}}-") for name in os.listdir(folder))

def mark(name, text=""):
    with open(f"{{folder}}/.{{name}}", "w") as file:
        file.write(str(text))
    os.replace(f"{{folder}}/.{{name}}", f"{{folder}}/{{name}}")

def await_(name):
    deadline = time.monotonic() + {PATIENCE}
    while not os.path.exists(f"{{folder}}/{{name}}"):
        assert time.monotonic() < deadline, name
        time.sleep(0.01)

def await_end(name):
    await_(name)
    with open(f"{{folder}}/{{name}}") as file:
        pid = int(file.read())
    try:
        while True:
            os.kill(pid, 0)
            time.sleep(0.01)
    except ProcessLookupError:  # the launcher has noticed
        pass

def on_sigterm(code):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))

def beat():
    with open(os.environ["{HEARTBEAT}"], "w"):
        pass

def sleep():
    time.sleep({10 * PATIENCE})
    os._exit(99)

mark(f"pid-{{index}}-{{attempt}}", os.getpid())
"""


def until(condition):
    """Waits for a condition, and gives its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return value


def exists(pid):
    """Whether there is such a process, or a zombie, which waits for its parent to notice."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def alive(pid):
    """Whether a process runs."""
    try:
        if sys.platform == "linux":
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (ProcessLookupError, FileNotFoundError):
        return False
    return exists(pid)


class Run:
    """A launcher that has been started, and the folder its workers write to."""

    def __init__(self, folder, command, environment, stdout):
        self.folder = folder / "marks"
        self.folder.mkdir()
        self.temporary = folder / "temporary"  # where the launcher makes its own
        self.temporary.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        inherited = {k: v for k, v in os.environ.items() if k not in (*THREADS, "TF_CONFIG")}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, "TMPDIR": str(self.temporary), **environment},
                stdout=stdout or out,
                stderr=err,
                start_new_session=True,
                # These tests may run under nohup, and what it ignores would be ignored here too.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    out = property(lambda self: self._out.read_bytes().decode(errors="surrogateescape"))
    err = property(lambda self: self._err.read_bytes().decode(errors="surrogateescape"))

    def finish(self):
        """The exit code of the launcher, which must leave nothing behind."""
        code = self.process.wait(PATIENCE)
        assert not any(map(alive, self.pids()))
        assert not list(self.temporary.iterdir())
        return code

    def pids(self):
        return [int(path.read_text()) for path in self.folder.glob("pid-*")]

    def await_pid(self, name):
        until((self.folder / f"pid-{name}").exists)
        return int((self.folder / f"pid-{name}").read_text())

    def starts(self):
        """How often each worker was started."""
        numbers = [int(path.name.split("-")[1]) for path in self.folder.glob("pid-[0-9]*")]
        return [numbers.count(index) for index in range(max(numbers, default=-1) + 1)]


@pytest.fixture
def launch(tmp_path):
    """Starts a launcher; in the end, however the test went, no process of it is left."""
    runs = []

    def start(script, *flags, num_workers=2, command=None, stdout=None, through=(), **environment):
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        if command is None:
            arguments = str(folder / "marks")
            command = ("--", sys.executable, "-I", "-S", "-c", PRELUDE + script, arguments)
        program = (sys.executable, "-m", "trainers.launch", f"--num_workers={num_workers}")
        runs.append(Run(folder, (*through, *program, *flags, *command), environment, stdout))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()
        for pid in run.pids():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_workers_get_a_cluster_of_free_ports(launch):
    run = launch("""
import socket
host, port = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"][index].split(":")
with socket.socket() as server:
    server.bind((host, int(port)))
assert os.read(0, 1) == b""  # /dev/null
assert not os.path.exists(os.environ["DEQ_KERAS_HEARTBEAT"])
assert os.getsid(0) == os.getpgid(0) == os.getpid()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
print(json.dumps([os.environ["TF_CONFIG"], os.environ["DEQ_KERAS_HEARTBEAT"]]))
""")
    assert run.finish() == 0, run.err
    assert run.err == ""
    lines = sorted(run.out.splitlines())
    clusters, heartbeats = [], set()
    for index, line in enumerate(lines):
        prefix, _, rest = line.partition("] ")
        assert prefix == f"[worker {index}"
        config, heartbeat = json.loads(rest)
        config = json.loads(config)
        assert config["task"] == {"type": "worker", "index": index}
        assert set(config) == {"task", "cluster"}
        clusters.append(config["cluster"])
        heartbeats.add(heartbeat)
    assert len(lines) == len(heartbeats) == 2
    assert clusters[0] == clusters[1]
    assert set(clusters[0]) == {"worker"}
    addresses = clusters[0]["worker"]
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_free_addresses_are_different():
    assert len(set(free_addresses(50))) == 50


def test_cores_are_divided(monkeypatch):
    addresses = ["127.0.0.1:1", "127.0.0.1:2"]
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(7), raising=False)
    assert {environment(addresses, 0, "file")[name] for name in THREADS} == {"3"}
    assert {environment(8 * addresses, 0, "file")[name] for name in THREADS} == {"1"}
    monkeypatch.setenv(THREADS[0], "5")  # the caller's choice
    assert [environment(addresses, 0, "file")[name] for name in THREADS] == ["5", "3", "3"]
    assert {environment(addresses, 0, "file", threads=4)[name] for name in THREADS} == {"4"}


def test_what_a_worker_prints_is_not_held_back(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    assert environment(["127.0.0.1:1"], 0, "file")["PYTHONUNBUFFERED"] == "1"


@linux
def test_workers_do_not_ignore_closed_pipes(launch):
    """As Python does, and what it starts unless it is told not to."""
    run = launch("", command=("--", "grep", "SigIgn", "/proc/self/status"), num_workers=1)
    assert run.finish() == 0, run.err
    assert int(run.out.split()[-1], 16) >> (signal.SIGPIPE - 1) & 1 == 0


def test_exit_codes_are_known_where_the_end_of_children_is_ignored(launch):
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    through = (sys.executable, "-c", code + "os.execv(sys.argv[1], sys.argv[1:])")
    run = launch("sys.exit(3)", "--max_restarts=0", num_workers=1, through=through)
    assert run.finish() == 3


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\n\n b \n", [b"a", b"", b" b "]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"no end", [b"no end"]),
        (b"a\xff\xfe\n\xc3", [b"a\xff\xfe", b"\xc3"]),
        (b"", []),
        # Bars, within one second: the first state and the last.
        (b"1%\r2%\r3%\r", [b"1%", b"3%"]),
        (b"\r1%\r2%\r3%", [b"1%", b"3%"]),
        (b"\r1%\r2%\r100%\ndone\n", [b"1%", b"100%", b"done"]),
        (b"1%\r2%\r\ndone\n", [b"1%", b"2%", b"done"]),
        (b"1%\r   \rdone\n", [b"1%", b"done"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_lines(data, lines, size):
    stream = Lines(clock=lambda: 0.0)
    seen = []
    for start in range(0, len(data), size):
        seen += stream.feed(data[start : start + size])
    assert seen + stream.flush() == lines


def test_a_bar_is_shown_once_in_a_while():
    now = 0.0
    stream = Lines(clock=lambda: now)
    shown = []
    for step in range(40):
        now = step * BAR_SECONDS / 4
        shown += stream.feed(b"%d\r" % step)
    assert shown == [b"%d" % step for step in range(0, 40, 4)]


def test_an_endless_line_is_cut():
    stream = Lines()
    shown = stream.feed(b"x" * (LONGEST_LINE + 1))
    shown += stream.feed(b"y\n")
    assert shown == [b"x" * (LONGEST_LINE + 1), b"y"]


def test_output_is_prefixed_and_kept(launch, tmp_path):
    run = launch(
        """
os.write(2, b"bad \\xff\\nno end")
for number in range(300):
    print(f"{number} " + str(index) * 5000, flush=True)
os.write(1, b"1%\\r2%\\rlast")
""",
        f"--log_dir={tmp_path / 'new' / 'logs'}",
    )
    assert run.finish() == 0, run.err
    for index in range(2):
        prefix = f"[worker {index}] "
        out = [line for line in run.out.splitlines() if line.startswith(prefix)]
        numbered = [f"{prefix}{number} {str(index) * 5000}" for number in range(300)]
        assert out == [*numbered, f"{prefix}1%", f"{prefix}last"]
        err = [line for line in run.err.splitlines() if line.startswith(prefix)]
        assert err == [f"{prefix}bad \udcff", f"{prefix}no end"]
        log = (tmp_path / "new" / "logs" / f"worker-{index}.log").read_bytes()
        assert b"bad \xff\nno end" in log
        assert log.count(b"\n") == 301
        assert b"1%\r2%\rlast" in log
    assert len(run.out.splitlines()) == 604


def test_an_exit_code_restarts_all_with_new_ports(launch):
    run = launch("""
cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
mark(f"cluster-{index}-{attempt}", cluster)
if attempt == 0:
    await_(f"pid-{1 - index}-0")
    sys.exit(3 if index else 69)
assert not os.path.exists(os.environ["DEQ_KERAS_HEARTBEAT"])
""")
    assert run.finish() == 0, run.err
    assert run.starts() == [2, 2]
    assert run.err == "[launch] worker 1 ended with exit code 3; restart 1 of 3\n"
    clusters = {path.read_text() for path in run.folder.glob("cluster-*")}
    assert len(clusters) == 2


def test_a_killed_worker_restarts_all(launch):
    """The other waits for it, as in a collective operation, and has helpers."""
    run = launch("""
if attempt == 0 and index == 0:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mark("pid-helper", helper.pid)
    sleep()
await_("pid-helper")
if attempt == 0:
    os.kill(os.getpid(), signal.SIGKILL)
""")
    assert run.finish() == 0, run.err  # and the helper is gone as well
    assert run.starts() == [2, 2]
    assert run.err == "[launch] worker 1 was ended by SIGKILL; restart 1 of 3\n"


@pytest.mark.parametrize("code", marked(sorted(FINAL), [USAGE, CONFIG]))
def test_what_would_fail_again_is_not_restarted(launch, code):
    run = launch(f"""
if index == 0:
    sleep()
await_("pid-0-0")
sys.exit({code})
""")
    assert run.finish() == code
    assert run.starts() == [1, 1]
    assert f"worker 1 ended with exit code {code} ({EXIT_NAMES[code]})" in run.err
    assert "no restart" in run.err


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 11)", 128 + 11)]
)
def test_restarts_are_counted(launch, end, code):
    run = launch(end, "--max_restarts=2", num_workers=1)
    assert run.finish() == code
    assert run.starts() == [3]
    assert "restart 1 of 2\n" in run.err
    assert "restart 2 of 2\n" in run.err
    assert run.err.endswith("no restart is left of 2\n")


def test_the_first_cause_is_blamed(launch):
    """Worker 0 notices that 1 is ending before that has ended."""
    run = launch(
        f"""
if index == 0:
    sys.exit({UNAVAILABLE})
await_end("pid-0-0")
sys.exit(7)
""",
        "--max_restarts=0",
    )
    assert run.finish() == 7
    assert "worker 1 ended with exit code 7" in run.err


def test_one_that_lost_another_is_named_if_nobody_else_failed(launch):
    run = launch(f"sys.exit({UNAVAILABLE})", "--max_restarts=0", num_workers=1)
    assert run.finish() == UNAVAILABLE
    assert "worker 0 ended with exit code 69 (UNAVAILABLE)" in run.err


def test_a_worker_may_finish_before_the_others(launch):
    run = launch("""
if index == 1 and attempt == 0:
    await_end("pid-0-0")
    sys.exit(3)
""")
    assert run.finish() == 0, run.err
    assert run.starts() == [2, 2]


def test_a_stopped_worker_hangs(launch):
    """The other, which would wait for it, is not blamed although it is silent for longer."""
    run = launch(
        """
while attempt == 0 and not (index == 0 and os.path.exists(folder + "/stop")):
    beat()
    mark(f"pid-beating-{index}", os.getpid())
    time.sleep(0.1)
if attempt == 0:
    sleep()
""",
        "--hang_timeout=1.5",
    )
    pids = [run.await_pid(f"beating-{index}") for index in range(2)]
    (run.folder / "stop").touch()
    os.kill(pids[1], signal.SIGSTOP)
    assert run.finish() == 0, run.err
    assert run.starts() == [2, 2]
    if sys.platform == "linux":  # elsewhere nobody knows who it is
        assert "worker 1 hangs (no heartbeat in 1." in run.err
        assert "it is stopped" in run.err
    assert "restart 1 of 3" in run.err


def test_a_dead_lock_hangs(launch):
    run = launch("beat()\nsleep()", "--hang_timeout=0.3", "--max_restarts=0", num_workers=1)
    assert run.finish() == 128 + signal.SIGKILL
    assert "worker 0 hangs" in run.err


def test_silence_ends_with_every_heartbeat(tmp_path):
    beats = tmp_path / "heartbeat"
    worker = Worker(0, ["true"], {**os.environ, HEARTBEAT: str(beats)})
    try:
        assert [worker.silence(9.0), worker.silence(9.0)] == [0, 0]  # it has not begun
        beats.touch()
        assert [worker.silence(9.0), worker.silence(1.0), worker.silence(0.5)] == [0, 1, 1.5]
        for when in (3000, 2000):  # also if the clock was set back
            os.utime(beats, (when, when))
            assert [worker.silence(9.0), worker.silence(1.0)] == [0, 1]
    finally:
        worker.kill()
        worker.process.communicate(timeout=PATIENCE)


def test_who_never_beats_does_not_hang(launch):
    run = launch("time.sleep(0.6)", "--hang_timeout=0.1", num_workers=1)
    assert run.finish() == 0, run.err
    assert run.starts() == [1]


def test_who_is_stopped_shortly_does_not_hang(launch):
    run = launch(
        """
beat()
mark("pid-beating", os.getpid())
await_("go")
""",
        "--hang_timeout=50",
        num_workers=1,
    )
    pid = run.await_pid("beating")
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.15)  # the launcher looks at it meanwhile
        os.kill(pid, signal.SIGCONT)
    (run.folder / "go").touch()
    assert run.finish() == 0, run.err
    assert run.starts() == [1]


def test_hangs_may_be_ignored(launch):
    run = launch("beat()\ntime.sleep(0.5)", "--hang_timeout=0", num_workers=1)
    assert run.finish() == 0
    assert run.starts() == [1]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(launch, signum):
    run = launch(f"""
def save(signum, frame):
    mark(f"saved-{{index}}", signum)
    sys.exit({STOPPED} if index else 0)
signal.signal(signal.SIGTERM, save)
mark(f"pid-ready-{{index}}", os.getpid())
sleep()
""")
    for index in range(2):
        run.await_pid(f"ready-{index}")
    run.process.send_signal(signum)
    assert run.finish() == STOPPED
    assert [(run.folder / f"saved-{i}").read_text() for i in range(2)] == ["15", "15"]
    assert run.starts() == [1, 1]
    assert signal.Signals(signum).name in run.err
    assert "run the same command again to go on" in run.err


def test_under_nohup_the_terminal_may_go(launch):
    run = launch(
        f"""
on_sigterm({STOPPED})
mark(f"pid-ready-{{index}}", os.getpid())
sleep()
""",
        through=("nohup",),
    )
    for index in range(2):
        run.await_pid(f"ready-{index}")
    run.process.send_signal(signal.SIGHUP)
    time.sleep(2 * ECHO)
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == STOPPED
    assert "SIGTERM" in run.err
    assert "SIGHUP" not in run.err


@pytest.mark.parametrize(("ends", "code"), [((0, 0), 0), ((75, 4), 128 + 15)])
def test_exit_code_after_a_signal(launch, ends, code):
    run = launch(f"""
on_sigterm({ends}[index])
mark(f"pid-ready-{{index}}", os.getpid())
sleep()
""")
    for index in range(2):
        run.await_pid(f"ready-{index}")
    run.process.terminate()
    assert run.finish() == code
    assert ("worker 1 ended with exit code 4" in run.err) == (code != 0)


STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark(f"pid-ready-{index}", os.getpid())
sleep()
"""


def test_who_does_not_end_is_killed_after_the_grace(launch):
    run = launch(STUBBORN, "--grace=0.3", num_workers=1)
    run.await_pid("ready-0")
    run.process.terminate()
    assert run.finish() == 128 + signal.SIGTERM
    assert "worker 0 did not end and was killed" in run.err


def test_a_second_signal_kills(launch):
    run = launch(STUBBORN, "--grace=1000", num_workers=1)
    run.await_pid("ready-0")
    run.process.send_signal(signal.SIGINT)
    until(lambda: "[launch] SIGINT" in run.err)
    assert run.process.poll() is None
    time.sleep(2 * ECHO)  # one that follows at once is taken for the first
    run.process.send_signal(signal.SIGTERM)
    assert run.finish() == 128 + signal.SIGINT


def test_a_signal_between_failure_and_restart_is_not_lost(launch):
    run = launch(f"""
if index:
    await_("pid-ready")
    sys.exit(3)
on_sigterm({STOPPED})
mark("pid-ready", os.getpid())
sleep()
""")
    pid = run.await_pid("1-0")
    until(lambda: not exists(pid))  # the launcher has noticed
    run.process.terminate()  # while it waits whether the other ends by itself
    assert run.finish() == 128 + signal.SIGTERM
    assert run.starts() == [1, 1]
    # The other was asked to save, and has.
    assert run.err.endswith("stopped by SIGTERM; worker 1 ended with exit code 3\n")


def test_a_worker_stopped_from_outside_stops_all(launch):
    run = launch(f"""
on_sigterm({STOPPED})
mark(f"pid-ready-{{index}}", os.getpid())
sleep()
""")
    run.await_pid("ready-0")
    os.kill(run.await_pid("ready-1"), signal.SIGTERM)
    assert run.finish() == STOPPED
    assert run.starts() == [1, 1]
    assert "run the same command again to go on" in run.err


HELPER = """
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
helper = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
mark(f"pid-helper-{index}", helper.pid)
"""


def test_nothing_that_a_worker_started_outlives_it(launch):
    run = launch(HELPER)
    assert run.finish() == 0
    assert len(run.pids()) == 4


@linux
@pytest.mark.parametrize("watched", [True, False])
def test_nothing_outlives_a_killed_launcher(launch, watched):
    run = launch(HELPER + STUBBORN if watched else STUBBORN)
    pids = [run.await_pid(f"ready-{index}") for index in range(2)]
    launcher = run.process.pid
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    (watchdog,) = {int(pid) for pid in children} - set(pids)
    if not watched:  # the workers die with the launcher without it
        os.kill(watchdog, signal.SIGKILL)
        until(lambda: not alive(watchdog))
    assert all(map(alive, run.pids()))
    os.killpg(launcher, signal.SIGKILL)  # it and those it has not put into a group of their own
    until(lambda: not any(map(alive, [watchdog, *run.pids()])))
    assert len(run.pids()) == (6 if watched else 4)
    assert (list(run.temporary.iterdir()) == []) == watched


@pytest.mark.slow
def test_nobody_reads_the_output(launch):
    """The launcher still obeys, and does not wait for the reader in the end."""
    reading, writing = os.pipe()
    try:
        script = f"on_sigterm({STOPPED})\nmark('pid-ready', os.getpid())\n"
        script += "while True:\n    print('x' * 1000)"
        run = launch(script, num_workers=1, stdout=writing)
        run.await_pid("ready")
        run.process.terminate()
        assert run.finish() == STOPPED
    finally:
        os.close(reading)
        os.close(writing)


def test_a_reader_that_goes_away_does_not_end_the_training(launch):
    reading, writing = os.pipe()
    run = launch("for _ in range(1000): print('x' * 1000)", num_workers=1, stdout=writing)
    os.close(writing)
    os.close(reading)
    assert run.finish() == 0, run.err


def test_blocked_output_is_known():
    """Workers that cannot print cannot beat, and must not be taken for hung."""
    console = Console()
    reading, writing = os.pipe()
    thread = threading.Thread(target=console.write, args=(writing, b"x" * (1 << 20)), daemon=True)
    thread.start()
    try:
        until(lambda: console.blocked)
    finally:
        os.close(reading)
    thread.join(PATIENCE)
    assert not console.blocked
    os.close(writing)


@pytest.mark.parametrize("kind", ["missing", "in no folder of PATH", "a text", "a folder"])
def test_a_command_that_cannot_be_run(launch, tmp_path, kind):
    (tmp_path / "a text").write_text("print(1)")
    (tmp_path / "a folder").mkdir()
    command = kind if "PATH" in kind else str(tmp_path / kind)
    run = launch("", command=("--", command, "--flag"))
    assert run.finish() == USAGE
    assert "Error: expected a program" in run.err
    assert kind in run.err
    assert "restart" not in run.err


def test_a_command_that_the_kernel_refuses(launch, tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x00\x01 no program")
    program.chmod(0o755)
    run = launch("", command=("--", str(program)), num_workers=1)
    assert run.finish() == USAGE
    assert "cannot be run: Exec format error" in run.err
    assert "no restart" in run.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num_workers=0", "--", "true"), "num_workers"),
        (("--num_workers=1", "--max_restarts=-1", "--", "true"), "max_restarts"),
        (("--num_workers=1", "--grace=nan", "--", "true"), "grace"),
        (("--num_workers=1", "--unknown", "--", "true"), "unknown"),
        (("--num_workers=1", "--log_dir=", "--", "true"), "log_dir"),
        (("--num_workers=1",), "Expected `-- COMMAND"),
        (("--num_workers=1", "--"), "Expected `-- COMMAND"),
    ],
)
def test_wrong_flags(launch, arguments, message):
    run = launch("", command=arguments)
    assert run.finish() == USAGE
    assert message in run.out + run.err
    assert "Traceback" not in run.err


def test_flags_of_the_command_are_its_own(launch):
    run = launch("", command=("--", "echo", "a", "--", "--num_workers=5"), num_workers=1)
    assert run.finish() == 0
    assert run.out == "[worker 0] a -- --num_workers=5\n"


def test_a_launch_inside_a_launch_is_refused(launch):
    run = launch("", TF_CONFIG='{"cluster": {}}')
    assert run.finish() == CONFIG
    assert run.starts() == []
    assert "expected no TF_CONFIG" in run.err


def test_logs_that_cannot_be_written(launch, tmp_path):
    (tmp_path / "file").write_text("")
    run = launch("", f"--log_dir={tmp_path / 'file' / 'logs'}")
    assert run.finish() == IO_ERROR
    assert "Not a directory" in run.err
    (tmp_path / "worker-1.log").mkdir()
    run = launch("sleep()", f"--log_dir={tmp_path}")
    assert run.finish() == IO_ERROR
    assert "Is a directory" in run.err


def test_the_launcher_starts_without_tensorflow():
    code = "import sys, trainers.launch.__main__\n"
    code += "print({'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.stdout == "set()\n", result.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": []}, "`command` must be"),
        ({"num_workers": 0}, "`num_workers` must be >= 1"),
        ({"max_restarts": -1}, "`max_restarts` must be >= 0"),
        ({"hang_timeout": -1.0}, "`hang_timeout` must be >= 0"),
        ({"grace": float("nan")}, "`grace` must be >= 0"),
        ({"threads": 0}, "`threads` must be >= 1"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        Launcher(**{"command": ["true"], "num_workers": 1, **changes})


def test_a_launcher_in_a_thread_is_stopped_by_its_method(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    script = PRELUDE + f"on_sigterm({STOPPED})\nmark('pid-ready', os.getpid())\nsleep()"
    launcher = Launcher([sys.executable, "-I", "-S", "-c", script, str(tmp_path)], 1, grace=10)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(launcher.run()))
    thread.start()
    try:
        until((tmp_path / "pid-ready").exists)
    finally:
        launcher.stop()
        thread.join(PATIENCE)
    assert codes == [STOPPED]
    assert not alive(int((tmp_path / "pid-ready").read_text()))
