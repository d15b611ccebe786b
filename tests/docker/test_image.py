"""The image: pinned, without root, and made of what the build context has."""

import fnmatch
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deq_keras import __version__ as VERSION

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.M)


@pytest.fixture(scope="module")
def dockerfile():
    """Its instructions, as pairs of a name and the rest, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def test_the_image_is_pinned_and_runs_as_somebody(dockerfile):
    arguments = dict(rest.split("=", 1) for name, rest in dockerfile if name == "ARG")
    bases = [rest for name, rest in dockerfile if name == "FROM"]
    assert len(bases) == 2
    assert all(base.split()[0] == "${BASE}" for base in bases)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", arguments["BASE"])
    assert [rest for name, rest in dockerfile if name == "USER"][-1] == "1000:1000"
    assert "--require-hashes" in str(dockerfile)


def test_signals_reach_python_and_health_is_checked(dockerfile):
    programs = dict(dockerfile)
    assert "ENTRYPOINT" not in programs
    command = json.loads(programs["CMD"])  # a list: no shell between
    assert command[:2] == ["python", "-m"]
    check = json.loads(programs["HEALTHCHECK"].split("CMD", 1)[1])
    script = Path(check[-1]).relative_to("/opt/deq_keras")
    assert (ROOT / script).is_file()
    assert any(name == "COPY" and str(script) in rest for name, rest in dockerfile)


def test_the_command_of_the_programs_is_there(dockerfile, tmp_path):
    link = next(rest for name, rest in dockerfile if name == "RUN" and rest.startswith("ln -s"))
    target, place = link.split()[2:]
    assert place == "/opt/venv/bin/deq-keras"
    command = tmp_path / Path(place).name
    command.symlink_to(ROOT / Path(target).relative_to("/opt/deq_keras"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    for argument, expected in (("--version", VERSION), ("help", "deq-keras COMMAND --help")):
        done = subprocess.run(
            [command, argument], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert expected in done.stdout


def _in_context(path, rules):
    """Whether the last rule of .dockerignore that names a path or a folder above it keeps it."""
    kept = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        above = [path, *map(str, Path(path).parents)]
        if any(fnmatch.fnmatch(name, pattern) for name in above if name != "."):
            kept = rule.startswith("!")
    return kept


def test_the_build_context_has_what_is_copied(dockerfile):
    rules = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    copies = [rest.split() for name, rest in dockerfile if name == "COPY" and "--from" not in rest]
    named = {source for copy in copies for source in copy[:-1]}
    sources = {source.replace("${EXTRA}", extra) for source in named for extra in ("cpu", "gpu")}
    assert {"deq_keras", "trainers", "experiments"} < sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert _in_context(source, rules), source
    for outside in (".git/config", "tests/conftest.py", "runs/demo/report.html", "docker/slurm.sh"):
        assert not _in_context(outside, rules), outside


def _locked(name):
    return dict(PINNED.findall((DOCKER / f"requirements-{name}.txt").read_text("utf-8")))


@pytest.fixture
def declared(monkeypatch):
    """What setup.py passes to `setup`."""
    found = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: found.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    return found


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_every_package_has_one_version_and_hashes(extra):
    text = (DOCKER / f"requirements-{extra}.txt").read_text("utf-8")
    names = [line.split("==")[0] for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert names == list(_locked(extra))
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_versions_are_those_that_setup_asks_for(declared, extra):
    """Fails when setup.py has changed and `make lock-docker` was forgotten."""
    locked = _locked(extra)
    machine = {"sys_platform": "linux", "platform_machine": "x86_64", "python_version": "3.12"}
    extras = declared["extras_require"]
    lines = declared["install_requires"] + extras[extra] + extras["train"]
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate(machine):
            name = canonicalize_name(requirement.name)
            assert name in locked, f"{name} is missing: make lock-docker"
            assert requirement.specifier.contains(locked[name]), f"{name}: make lock-docker"


def test_both_images_have_the_same_versions():
    cpu, gpu, build = _locked("cpu"), _locked("gpu"), _locked("build")
    assert {n: gpu[n] for n in set(cpu) - {"tensorflow-cpu"}}.items() <= cpu.items()
    assert cpu["tensorflow-cpu"] == gpu["tensorflow"]
    assert {n: cpu[n] for n in build} == build
