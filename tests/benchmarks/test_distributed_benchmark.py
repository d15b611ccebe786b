"""The suite `distributed`: its model of more workers, its rules, its processes, a tiny run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import distributed_suite, forecast
from benchmarks.remote import Remote, RemoteError

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="cores are chosen by the system"
)


def costs(**changes):
    """Costs without anything that keeps workers from being as fast as their number."""
    plain = {"local": 0.8, "scale": 0.0, "images": 8, "fixed": 0.0, "image": 0.1}
    return forecast.Costs(**{**plain, "overhead": 0.0, "bytes": 0, **changes})


FREE = forecast.Network(latency=0.0, bandwidth=float("inf"))


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_the_ring_is_that_of_its_simulation(workers):
    """Each round all send a piece to the next one, until all have the sum of all."""
    rng = np.random.default_rng(0)
    network, size = forecast.Network(latency=3e-4, bandwidth=1e6), 8 * 24 * workers
    values = [rng.normal(size=(workers, 24)) for _ in range(workers)]  # a row is a piece
    total, seconds = sum(values), 0.0
    for phase in ("add", "copy"):
        for turn in range(workers - 1):
            pieces = [(w - turn + (phase == "copy")) % workers for w in range(workers)]
            sent = [(piece, values[w][piece].copy()) for w, piece in enumerate(pieces)]
            for worker, (piece, content) in enumerate(sent):
                target = values[(worker + 1) % workers]
                target[piece] = content + (target[piece] if phase == "add" else 0.0)
            seconds += network.latency + sent[0][1].nbytes / network.bandwidth
    for value in values:
        np.testing.assert_allclose(value, total)
    assert forecast.ring(workers, size, network) == pytest.approx(seconds)


def test_waiting_is_the_mean_of_the_largest():
    rng = np.random.default_rng(0)
    scale = forecast.gumbel_scale(rng.gumbel(1.0, 0.05, 20000))
    assert scale == pytest.approx(0.05, rel=0.03)
    local = 1.0 + 0.05 * np.euler_gamma  # the mean of such numbers
    for workers in (2, 8, 64):
        largest = rng.gumbel(1.0, 0.05, (20000, workers)).max(1).mean()
        row = forecast.weak(costs(local=local, scale=scale), FREE, workers)
        assert row["seconds"] == pytest.approx(largest, rel=5e-3)
        assert row["efficiency"] == pytest.approx(local / largest, rel=5e-3)


@pytest.mark.parametrize("workers", [8, 64, 512])
def test_a_forecast_without_obstacles_is_ideal(workers):
    for row in (
        forecast.weak(costs(), FREE, workers),
        forecast.strong(costs(), FREE, workers, 512),
    ):
        assert row["speedup"] == pytest.approx(workers)
        assert row["efficiency"] == pytest.approx(1.0)
        assert row["extrapolated"]
    # Half an image there is not, and a fixed part does not shrink.
    assert forecast.strong(costs(), FREE, 512, 256)["speedup"] == pytest.approx(256)
    row = forecast.strong(costs(fixed=0.1), FREE, workers, 512)
    assert row["speedup"] == pytest.approx(51.3 / (0.1 + 51.2 / workers))


def test_one_worker_neither_waits_nor_sends():
    network = forecast.Network(latency=1.0, bandwidth=1.0)
    row = forecast.weak(costs(scale=1.0, overhead=1.0, bytes=100), network, 1)
    assert row["seconds"] == 0.8
    assert row["efficiency"] == 1.0


def test_costs_of_images_follow_from_two_batches():
    assert forecast.fixed_and_image(1.7, 0.9, 16) == (pytest.approx(0.1), pytest.approx(0.1))
    assert forecast.fixed_and_image(1.6, 0.7, 16) == (0.0, 0.1)  # noise


def measured(fixed=0.1, image=0.05, exchange=0.02):
    """What `contest` would give, if all were so exact; worker 1 is slower by a tenth."""
    steps, repeats, batch = 4, 2, 8
    whole, halves = fixed + 16 * image, [fixed + 8 * image, 1.1 * (fixed + 8 * image)]
    pair = halves[1] + exchange

    def lines(seconds, first):
        rows = [{"loss": 1.0 / (n + 1), "seconds": seconds} for n in range(first, first + steps)]
        rows[0]["seconds"] = 100.0  # does not count
        return rows

    def clock(wall, busy):
        return [(100.0, 1.0)] + [(wall, busy)] * (steps - 1)

    first = range(0, steps * (repeats + 1), steps)
    chief, other = (clock(pair, busy) for busy in halves)
    number = 1e-4 + 2 * 3e-4  # dispatch, and two rounds
    reduced = {1: number, 600: number + 2400 / 1e9, distributed_suite.LARGE: number + 2**22 / 1e9}
    return SimpleNamespace(steps=steps, batch=batch), {
        "numbers": 600,
        "rounds": {
            "one": [[(lines(whole, n), clock(whole, whole))] for n in first],
            "two": [
                [(lines(pair, n), clock(pair, halves[0])), ([], clock(pair, halves[1]))]
                for n in first
            ],
        },
        "dissected": [
            {"alone": [t] * 8, "at_once": [t] * 8, "together": [pair] * 8} for t in halves
        ],
        "whole": [*lines(whole, 0), *lines(whole, 4)],
        "reduced": {size: [[t] * 3, [t / 2] * 3] for size, t in reduced.items()},
        "dispatch": [[1e-4] * 3] * 2,
    }


def test_the_summary_finds_the_parts_again():
    settings, found = measured()
    row = distributed_suite.summarise(found, settings)
    pair = 1.1 * 0.5 + 0.02
    assert row["ratio"]["median"] == pytest.approx(0.9 / pair)
    assert not row["met"]
    assert row["loss_difference"] == 0.0
    assert row["equal_work"]
    assert row["free"]
    assert row["core_share"] == pytest.approx(0.55 / 0.57)
    assert row["processor_seconds"] == {"one": pytest.approx(0.9), "two": pytest.approx(0.55)}
    step = row["step"]
    assert step["share_of_waiting"] == pytest.approx(0.025 / pair)
    assert step["share_of_exchange"] == pytest.approx(0.02 / pair)
    assert row["share_of_all_reduce"] == pytest.approx((7e-4 + 2.4e-6) / pair)
    loopback = row["forecast"]["loopback"]
    assert loopback["latency"] == pytest.approx(3e-4)
    assert loopback["bandwidth"] == pytest.approx(1e9)
    assert row["forecast"]["assumed"]["latency"] == pytest.approx(3.5e-4)
    assert row["forecast"]["costs"]["overhead"] == pytest.approx(0.02 - 7e-4 - 2.4e-6)
    assert row["forecast"]["costs"]["local"] == pytest.approx(0.525)


@pytest.mark.parametrize("busy", ["one", "two"])
def test_other_work_and_busy_cores_are_told(busy):
    settings, found = measured()
    found["rounds"]["two"][1][0][0][2]["loss"] *= 1.0 + 2e-5
    for turn in (1, 2):
        for _, clock in found["rounds"][busy][turn]:
            clock[:] = [(wall, used / 2) for wall, used in clock]
    row = distributed_suite.summarise(found, settings)
    assert row["loss_difference"] == pytest.approx(2e-5)
    assert not row["equal_work"]
    assert row["core_share"] == pytest.approx({"one": 1.0, "two": 0.55 / 0.57}[busy] / 2)
    assert not row["free"]


def topology(folder, siblings):
    for cpu, text in siblings.items():
        place = folder / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{text}\n")
    return folder


@linux
def test_cores_are_no_threads_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    threads = topology(tmp_path / "threads", {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"})
    assert distributed_suite.cores(threads) == [0, 2]
    same = topology(tmp_path / "same", dict.fromkeys(range(4), "0-3"))
    with pytest.raises(ValueError, match=r"two cores.*\[0, 1, 2, 3\].* 1 core"):
        distributed_suite.cores(same)


@linux
def test_one_core_is_refused_not_measured(tmp_path):
    """The program, allowed one core only."""
    code = (
        "import os, runpy, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)"
    )
    path = tmp_path / "x.json"
    command = [sys.executable, "-c", code, "--suite=distributed", f"--output={path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Expected two cores" in done.stderr
    assert not path.exists()


def test_a_silent_worker_is_ended():
    with Remote(1) as remote:
        with pytest.raises(RemoteError, match=r"did not answer within 0.2 s"):
            remote.receive(0.2)
        with pytest.raises(RemoteError, match=r"died with status -9"):
            remote.receive()


def test_who_waits_for_one_that_failed_is_ended(monkeypatch):
    with distributed_suite.Group((), None, distributed=False) as group:
        group._remotes = [Remote(1), Remote(1)]
        # Nothing is asked of the first one, so that it would not answer in this time.
        monkeypatch.setattr(group._remotes[0], "send", lambda *_: None, raising=False)
        begin = time.monotonic()
        with pytest.raises(RemoteError, match="no_such_method"):
            group.ask("no_such_method", seconds=600)
        assert time.monotonic() - begin < 300
    assert [remote._process.poll() for remote in group._remotes] == [-9, -9]


@pytest.mark.slow
@linux
def test_the_program_with_real_processes(tmp_path):
    path = tmp_path / "distributed.json"
    arguments = ["--suite=distributed", "--size=16", "--batch=2", "--filters=3", "--repeats=2"]
    command = [sys.executable, "-m", "benchmarks", f"--output={path}", *arguments]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    done = subprocess.run(
        [*command, "--steps=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    results = json.loads(path.read_text("utf-8"))["results"]
    assert set(results["models"]) == set(distributed_suite.MODELS)
    sent = {}
    for name, row in results["models"].items():
        assert row["equal_work"], row["loss_difference"]
        assert len(row["one"]["seconds"]) == len(row["two"]["seconds"]) == 2
        sent[name] = row["exchange"]["bytes"] // 4
        assert name in done.stdout
    # Filters, activations of as many, lambda; loss, weight, images and the wish to stop.
    assert sent["equilibrium"] > sent["bilevel"] > 3 * 5 * 5 + 4
    assert "Extrapolated" in done.stdout
