"""The examples: those in docstrings, and the code of README.md and docs/, run as they stand."""

import doctest
import importlib.util
import inspect
import io
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras
from experiments import restoration
from experiments.configs import train_demo
from experiments.configs.riccio2022 import faces, mnist

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = {"deq_keras": deq_keras, "dk": deq_keras, "tf": tf, "keras": keras, "np": np}

# Modules whose public names each have an example. `numerics` is not imported by users.
PUBLIC = [
    *(getattr(deq_keras, name) for name in deq_keras.__all__ if name[0] != "_"),
    deq_keras.priors.initializers,
    deq_keras.priors.potentials,
    deq_keras.presets.pytorch,
    deq_keras.numerics,
    deq_keras.numerics.jacobian,
]
# What needs none. The records are read, not made, by users, and the examples of what returns them
# show them.
WITHOUT = {
    "bilevel.Hypergradient",
    "bilevel.Learned",
    "bilevel.Record",
    "bilevel.Solved",
    "certificates.ErrorBound",
    "conditioning.Conditioning",
    "operators.LinearMap",
    "priors.BoundPrior",
    "priors.potentials.Potential",
    "testing.CellReport",
    "testing.FidelityReport",
    "testing.PriorReport",
}


def _docstrings():
    """Every docstring that holds an example, once, as a `doctest.DocTest`."""
    modules = pkgutil.walk_packages(deq_keras.__path__, "deq_keras.")
    clients = pkgutil.walk_packages(restoration.__path__, "experiments.restoration.")
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [importlib.import_module(info.name) for info in (*modules, *clients)]
    for module in [deq_keras, *found]:
        for test in finder.find(module, module.__name__, module, globs=NAMES):
            if test.examples:
                yield pytest.param(test, id=test.name.removeprefix("deq_keras."))


@pytest.mark.parametrize("test", list(_docstrings()))
def test_docstring(test):
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(test, out=report.write, clear_globs=False)
    assert not runner.failures, report.getvalue()


def _public():
    """The public classes and functions, by name without `deq_keras.`; an object counts once."""
    found = {}
    for module in PUBLIC:
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{module.__name__}.{name}".removeprefix("deq_keras.")] = value
    return found


def test_each_public_name_has_an_example():
    public = _public()
    assert WITHOUT <= set(public), "No longer there: " + str(WITHOUT - set(public))
    missing = [
        name
        for name, value in public.items()
        if ">>> " not in (value.__doc__ or "") and name not in WITHOUT
    ]
    assert not missing, "Without an example:\n" + "\n".join(missing)
    needless = [name for name in WITHOUT if ">>> " in (public[name].__doc__ or "")]
    assert not needless, f"These have an example, so they need no exception: {needless}"


def _name(page):
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def _blocks(page, language):
    """The blocks of code in a page as `(line, text)`."""
    text = page.read_text("utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.S | re.M):
        yield text.count("\n", 0, match.start(1)), match.group(1)


# These take more than about ten seconds, and what they call is called in README.md, which fits,
# saves and exports a model in the same way, and in the examples of `SelfSupervised` and `MAID`.
SLOW = {ROOT / "docs" / "getting-started.md", ROOT / "docs" / "training.md"}


def _with_code():
    assert set(PAGES) >= SLOW
    return [
        pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
        for page in PAGES
        if list(_blocks(page, "python"))
    ]


@pytest.mark.parametrize("page", _with_code(), ids=_name)
def test_code_of_page(page, tmp_path, monkeypatch):
    """All its Python blocks, in order and in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for line, text in _blocks(page, "python"):
        # Empty lines in front, so that an error names the line of the page.
        exec(compile("\n" * line + text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_of_page(page):
    """Files, and the headings in them, that a page links to."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.S | re.M)
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue  # of the web, which tests do not look at
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (heading and heading not in _headings(path)):
            wrong.append(target)
    assert not wrong, f"{page.name} links to what is not there: {wrong}"


def _headings(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_length_of_the_readme():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_what_a_page_names_exists(page):
    """Programs, targets of make, files, entries of configurations and names of deq_keras."""
    text = page.read_text("utf-8")
    programs = r"python -m ((?:experiments|trainers|benchmarks|docs)(?:\.\w+)*)"
    folders = r"`((?:deq_keras|experiments|trainers|benchmarks|tests|docs)/[\w./-]*)`"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    # Of the paper's experiments on the page about them, else of trainings.
    modules = (mnist, faces) if page.name == "paper.md" else (train_demo,)
    configs = [module.get_config() for module in modules]
    checks = {
        programs: lambda name: importlib.util.find_spec(name),
        folders: lambda name: (ROOT / name).exists(),
        r"(?:^|`)make ([\w-]+)": lambda name: re.search(rf"^{name}:", makefile, re.M),
        r"--config\.([a-z][\w.]*)=": lambda name: any(_has(one, name) for one in configs),
        r"\b(?:dk|deq_keras)\.([a-z_]+(?:\.\w+)*)": lambda name: _has(deq_keras, name),
    }
    wrong = [
        name
        for pattern, exists in checks.items()
        for name in re.findall(pattern, text, re.M)
        if not exists(name)
    ]
    assert not wrong, f"{page.name} names what is not there: {wrong}"


def _has(thing, dotted):
    """Whether there is an attribute of an attribute, or an entry of a configuration."""
    missing = object()
    for name in dotted.split("."):
        thing = getattr(thing, name, missing)
    return thing is not missing


def test_table_of_the_readme():
    """Each class stands in the row of a module that has it, and no module is left out."""
    text = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.*) \|$", text, re.M)
    assert rows
    listed = set()
    for modules, contents in rows:
        modules = re.findall(r"\w+", modules)
        listed |= set(modules)
        for name in re.findall(r"`([A-Z]\w+)`", contents):
            found = [m for m in modules if hasattr(getattr(deq_keras, m), name)]
            assert found, f"README.md names {name}, which is not in {modules}."
    public = {name for name in deq_keras.__all__ if name[0] != "_"}
    assert listed == public, f"Left out, or no longer there: {listed ^ public}"
