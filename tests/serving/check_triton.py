"""Exported models behind a real Triton: answers, errors, and a load of many clients.

    python tests/serving/check_triton.py EXPORT… --programs=.venv/bin/python [--requests=200]
        [--clients=8] [--seed=0]

Makes a model repository of each export with docker/serving/triton/make_repository.py, starts
tritonserver on loopback, and compares what it answers over REST and gRPC with what the SavedModel
says when it is called directly; then `experiments.serve_check` looks at it, in the Python that
--programs names. `make serving-test` runs all of it. The exit code is not zero if any
answer was wrong or missing, if a bad request was answered, or if the server or a model ended.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

# As many threads as the models have, so that sums are taken in the same order.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "docker" / "serving" / "triton")]

import make_repository  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import readme_calls  # noqa: E402
import traffic  # noqa: E402
import tritonclient.grpc  # noqa: E402
import tritonclient.http  # noqa: E402
from triton_server import HOST, TritonServer  # noqa: E402
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402

CLIENTS = {"REST": tritonclient.http, "gRPC": tritonclient.grpc}
# A bad request is the client's mistake, and the server has to say so: not that something broke.
REFUSALS = {"400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"}
MEBIBYTE = 2**20


class Outcome(NamedTuple):
    """What came of a request: `problem` is empty if it was as it should be.

    `refusal` is what the server said to a bad one.
    """

    request: traffic.Request
    over: str
    seconds: float
    problem: str
    refusal: str = ""


def send(client, over, request):
    """The outputs of a request, as arrays by name."""
    inputs = []
    for name, value in request.inputs.items():
        value = traffic.to_triton(value)
        kind = "BYTES" if value.dtype == object else np_to_triton_dtype(value.dtype)
        inputs.append(CLIENTS[over].InferInput(name, value.shape, kind))
        inputs[-1].set_data_from_numpy(value)
    limit = {"client_timeout": 120} if over == "gRPC" else {}
    result = client.infer(request.model, inputs, **limit)
    outputs = request.expected or {}
    return {
        name: traffic.from_triton(
            result.as_numpy(name), "complex64" if np.iscomplexobj(value) else str(value.dtype)
        )
        for name, value in outputs.items()
    }


def difference(received, expected):
    """What is wrong with an answer, or an empty text."""
    for name, value in expected.items():
        got = received[name]
        if got.shape != value.shape or got.dtype != value.dtype:
            return f"{name} is {got.dtype}{got.shape}, expected {value.dtype}{value.shape}"
        if not np.array_equal(got, value, equal_nan=value.dtype.kind == "f"):
            worst = ""
            if value.dtype.kind in "fc":
                worst = f", by {np.abs(got - value).max():.1e}"
            return f"{name} differs{worst}"
    return ""


def attempt(client, over, request):
    """Sends a request and judges what comes back."""
    begin, refusal = time.perf_counter(), ""
    try:
        received = send(client, over, request)
    except InferenceServerException as error:
        refusal = str(error)
        mistaken = request.expected is not None or str(error.status()) not in REFUSALS
        problem = f"failed: {refusal}" if mistaken else ""
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        problem = difference(received, request.expected) if request.expected else "was answered"
    return Outcome(request, over, time.perf_counter() - begin, problem, refusal)


def load(server, requests, clients):
    """Sends requests from many clients at the same time, by turns over REST and gRPC."""
    outcomes, lock = [], threading.Lock()
    queue = list(enumerate(requests))[::-1]

    def client():
        found = {"REST": server.http(), "gRPC": server.grpc()}
        while True:
            with lock:
                if not queue:
                    break
                number, request = queue.pop()
            over = ("REST", "gRPC")[number % 2]
            outcome = attempt(found[over], over, request)
            with lock:
                outcomes.append(outcome)
        for one in found.values():
            one.close()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def report(title, outcomes):
    """Prints how long the answers took, and what was wrong; returns the number of problems."""
    problems = [outcome for outcome in outcomes if outcome.problem]
    refused = sum(outcome.request.expected is None for outcome in outcomes)
    print(f"{title}: {len(outcomes)} requests, {refused} of them bad, {len(problems)} problems")
    for over in CLIENTS:
        seconds = [o.seconds for o in outcomes if o.over == over and o.request.expected is not None]
        if seconds:
            p50, p95, p99 = 1000 * np.percentile(seconds, [50, 95, 99])
            print(f"  {over}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms")
    for outcome in problems[:20]:
        print(f"  {outcome.over} {outcome.request.label}: {outcome.problem[:300]}")
    return len(problems)


def serve_checks(exports, server, python):
    """`experiments.serve_check` on each model, with its own card and with that of another one."""
    problems = []
    ports = {"grpc": server.grpc_port, "http": server.http_port}
    for number, export in enumerate(exports):
        inputs = set(export.signatures["diagnose"]["inputs"])
        others = [e for e in exports if set(e.signatures["diagnose"]["inputs"]) != inputs]
        cards = [(export, 0)] + [(other, 78) for other in others[:1]]
        for card, code in cards:
            scheme = list(ports)[number % 2]
            done = subprocess.run(
                [
                    *(python, "-m", "experiments.serve_check", f"--name={export.name}"),
                    f"--server={scheme}://{HOST}:{ports[scheme]}",
                    f"--card={card.version}",
                ],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
            )
            if done.returncode != code:
                problems.append(
                    f"serve_check of {export.name} over {scheme} with the card of {card.name} "
                    f"ended with {done.returncode}, expected {code}: {done.stdout}{done.stderr}"
                )
    return problems


def check(exports, server, given, rng):
    """All checks against a server that is ready; returns the number of problems."""
    count, clients = given.requests, given.clients
    pids = sorted(process.pid for process in server.processes())
    found = {"REST": server.http(), "gRPC": server.grpc()}
    one_by_one = []
    for export in exports:
        wanted = [export.good(s, 2, (24, 31)) for s in sorted(export.signatures)] + export.bad()
        for request in wanted:
            one_by_one += [attempt(client, over, request) for over, client in found.items()]
    problems = report("One after the other", one_by_one)
    for outcome in one_by_one:
        if outcome.refusal and outcome.over == "REST":
            print(f"  refused, {outcome.request.label}: {' '.join(outcome.refusal.split())[:150]}")
    grey = [export.name for export in exports if export.takes_grey_images]
    if grey:
        with tempfile.TemporaryDirectory() as folder:
            wrong = readme_calls.run_all(server, grey[0], Path(folder))
        print("The calls of the README:", "\n".join(wrong) or "as they say")
        problems += len(wrong)

    wrong = serve_checks(exports, server, given.programs)
    print("serve_check:", "\n".join(wrong) or "every model is what its card says, and no other")
    problems += len(wrong)

    share = -(-count // len(exports))
    requests = []
    for export in exports:
        bad = export.bad()
        few = [bad[i] for i in rng.permutation(len(bad))[: share // 8]]
        requests += [*few, *export.some(share - len(few))]
    requests = [requests[i] for i in rng.permutation(len(requests))[:count]]
    before = server.memory()
    begin = time.perf_counter()
    outcomes = load(server, requests, clients)
    seconds = time.perf_counter() - begin
    after = server.memory()
    problems += report(f"{clients} clients", outcomes)
    print(f"  {len(outcomes) / seconds:.1f} requests a second")
    print(f"  memory of the server: {before / MEBIBYTE:.0f} MiB, then {after / MEBIBYTE:.0f} MiB")
    if len(outcomes) != len(requests):
        problems += 1
        print(f"  {len(requests) - len(outcomes)} requests without an outcome")
    alive = server.process.poll() is None and found["REST"].is_server_ready()
    same = alive and pids == sorted(process.pid for process in server.processes())
    print("The server is alive, with the processes it began with." if same else "It has not lived.")
    return problems + (not same) + check_health(server)


def check_health(server):
    """Whether the health check of the image tells a server from one that lost a model; the last."""
    before = server.health()
    victim = next(one for one in server.processes() if one.pid != server.process.pid)
    victim.kill()
    while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.1)
    after = server.health()
    right = before[0] == 0 and after[0] != 0
    print(f"The health check: {before}, and when the process of a model was killed: {after}")
    return not right


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exports", type=Path, nargs="+", help="folders of exported models")
    parser.add_argument("--programs", required=True, help="a Python that runs `experiments`")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=900, help="seconds for all of it")
    given = parser.parse_args()
    # Both leave through the `with` below, which ends the server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped by SIGTERM."))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"Not done after {given.timeout} seconds."))
    signal.alarm(given.timeout)
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        for export in given.exports:
            print("\n".join(make_repository.make(export, repository)))
        exports = [traffic.Export(export.resolve(), rng) for export in given.exports]
        begin = time.perf_counter()
        with TritonServer(repository, Path(folder) / "server") as server:
            version = server.http().get_server_metadata()["version"]
            print(f"Triton {version}, ready after {time.perf_counter() - begin:.1f} seconds.")
            problems = check(exports, server, given, rng)
            if problems:
                print(Path(server.log).read_text("utf-8", "replace")[-2000:])
    print("Nothing wrong." if not problems else f"{problems} problems.")
    return problems > 0


if __name__ == "__main__":
    sys.exit(main())
