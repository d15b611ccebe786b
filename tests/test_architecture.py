"""The shape of the code: imports go one way, and a few things exist in one place only.

The sources are parsed, not imported, so this runs without TensorFlow and in a moment.
"""

import ast
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("deq_keras", "trainers", "experiments", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SOURCES += sorted((ROOT / "docs").glob("*.py"))  # not the gallery: its examples run at import
TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in SOURCES}

# What the files in a place must not import. Names are prefixes of dotted modules.
FORBIDDEN = {
    "deq_keras": ("trainers", "experiments", "benchmarks", "tests"),
    "trainers": ("experiments", "benchmarks", "tests"),
    "experiments": ("benchmarks", "tests"),
    "benchmarks": ("tests",),
    "docs": ("tests", "benchmarks"),
}

# What a room of the library may import of the others.
MODELS = ("operators", "fidelities", "priors")
LIBRARY = {
    "numerics": (),
    "convolution": ("numerics",),
    "problems": ("numerics",),
    "linear_solvers": ("numerics", "problems"),
    "solvers": ("numerics", "problems", "linear_solvers"),
    "adjoints": ("numerics", "problems", "solvers", "linear_solvers"),
    **dict.fromkeys(MODELS, ("numerics", "convolution")),
    "layers": ("numerics", "convolution", "problems", "solvers", "linear_solvers", "adjoints")
    + MODELS,
    "plot": ("numerics", "problems", "priors"),
    "denoisers": ("layers",),
    "testing": ("numerics", "operators", "layers"),
    "presets": ("convolution", "denoisers", "priors"),
    "losses": ("numerics", "operators", "priors", "layers", "metrics"),
    "bilevel": ("numerics", "adjoints", "layers"),
}
for _room, _below in LIBRARY.items():
    FORBIDDEN[f"deq_keras/{_room}"] = tuple(
        f"deq_keras.{other}" for other in (*LIBRARY, "metrics") if other not in (_room, *_below)
    )
# The files beside the rooms are what all of these build on, but for some.
ALONE = {
    "certificates.py": ("linear_solvers", "numerics", "problems"),
    "conditioning.py": ("numerics", "problems"),
    "config.py": (),
    "checks.py": (),
    "constraints.py": (),
    "metrics.py": (),
    "regularizers.py": ("numerics",),
}
for _name_of_file, _below in ALONE.items():
    FORBIDDEN[f"deq_keras/{_name_of_file}"] = tuple(
        f"deq_keras.{other}" for other in LIBRARY if other not in _below
    )

# What a room of `trainers` may import of the others. (`launch` starts without TensorFlow.)
ROOMS = {
    "process": (),
    "launch": ("process",),
    "cluster": ("process",),
    "datasets": ("process",),
    "callbacks": ("process",),
    "training": ("process", "cluster", "datasets", "callbacks"),
    "export": ("process", "callbacks"),
}
for _room, _below in ROOMS.items():
    FORBIDDEN[f"trainers/{_room}"] = tuple(
        f"trainers.{other}" for other in ROOMS if other not in (_room, *_below)
    )
FORBIDDEN["trainers/launch"] += ("tensorflow", "keras", "deq_keras")
# A client of a server needs no TensorFlow; the file for models of this machine does.
WITH_TENSORFLOW = "experiments/restoration/local.py"
CLIENT = ("experiments/program.py", "experiments/restore.py", "experiments/restoration")
FORBIDDEN |= dict.fromkeys(CLIENT, ("tensorflow", "keras", "deq_keras", "experiments.command_line"))

# It imports matplotlib within the function that makes a figure: tests/plot/ has that.
WITH_MATPLOTLIB = "deq_keras/plot/figure.py"

# Pages are written from numbers and arrays: they train nothing and know no model. The page of a
# reproduction builds on the report's parts, and not the other way round.
PAGES = ("experiments/report",) + tuple(
    f"experiments/reproduction/{name}.py"
    for name in ("page", "page_style", "groups", "figures", "tables", "panels")
)
FORBIDDEN |= dict.fromkeys(PAGES, ("tensorflow", "keras", "deq_keras", "trainers"))
ARRAYS = ("deq_keras.plot",)  # functions of arrays, which pages may draw with
FORBIDDEN["experiments/report"] += ("experiments.reproduction",)

# The contract of a Keras object, documented there.
KERAS_METHODS = {
    "build",
    "call",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_build_config",
    "get_config",
    "reset_state",
    "result",
    "test_step",
    "train_step",
    "update_state",
}


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _within(name, place):
    return name == place or name.startswith(place.rstrip("/") + "/")


def _imports(path):
    """The dotted modules that a file imports anywhere, each `from a import b` as `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _dotted(node):
    """`"tf.nn.relu"` for that expression, and None for one that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None


def _uses(name):
    """The files that mention the attribute `name`, as in `tf.name`, and how often."""
    counts = {}
    for path, tree in TREES.items():
        mentions = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == name]
        if mentions:
            counts[_name(path)] = len(mentions)
    return counts


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_go_one_way(place):
    wrong = [
        f"{_name(path)} imports {module}"
        for path in SOURCES
        if _within(_name(path), place) and (place not in CLIENT or _name(path) != WITH_TENSORFLOW)
        for module in _imports(path)
        for forbidden in FORBIDDEN[place]
        if module == forbidden or module.startswith(forbidden + ".")
        if place not in PAGES or not module.startswith(ARRAYS)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_file_of_the_trainers_is_in_a_room_with_a_rule():
    outside = [
        _name(path)
        for path in SOURCES
        if _within(_name(path), "trainers")
        and _name(path) != "trainers/__init__.py"
        and path.relative_to(ROOT).parts[1] not in ROOMS
    ]
    assert not outside


def test_each_room_of_the_library_has_a_rule():
    rooms = {path.parent.name for path in (ROOT / "deq_keras").glob("*/__init__.py")}
    assert rooms == set(LIBRARY)


def test_the_places_exist():
    missing = [place for place in FORBIDDEN if not (ROOT / place).exists()]
    assert not missing, f"Moved? The rules above no longer check {missing}."


def test_the_library_needs_only_tensorflow_keras_and_numpy():
    allowed = {"tensorflow", "keras", "numpy", "deq_keras", *sys.stdlib_module_names}
    wrong = [
        f"{_name(path)} imports {module}"
        for path in SOURCES
        if _within(_name(path), "deq_keras") and _name(path) != WITH_MATPLOTLIB
        for module in _imports(path)
        if module.split(".")[0] not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_one_custom_gradient():
    uses = _uses("custom_gradient")
    # The derivative of a linear map is its adjoint.
    for name in ("deq_keras/convolution/correlation.py", "deq_keras/numerics/linear.py"):
        uses.pop(name)
    assert uses == {"deq_keras/adjoints/base.py": 1}


def test_loops_are_in_the_solvers():
    outside = [
        name
        for name in _uses("while_loop")
        if name not in ("deq_keras/solvers/loop.py", "deq_keras/solvers/base.py")
        and name != "deq_keras/operators/estimates.py"  # a power iteration, of no problem
        and name != "deq_keras/conditioning.py"  # Lanczos's, which solves nothing
        and not _within(name, "deq_keras/linear_solvers")
    ]
    assert not outside


def _runs_at_import(body):
    """The calls that happen when a module with these statements is imported."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inside = [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            continue
        else:  # a class body runs at import; its decorators only register it
            inside = [
                child
                for child in ast.iter_child_nodes(node)
                if child not in getattr(node, "decorator_list", [])
            ]
        if isinstance(node, ast.Call):
            yield node
        yield from _runs_at_import(inside)


def test_importing_runs_nothing():
    """No program starts and no tensor is made by an import: devices must still be free to set."""
    forbidden = ("tf.", "tensorflow.", "keras.ops.", "keras.random.", "np.random.", "app.run")
    declares = ("tf.TensorSpec", "tf.io.FixedLenFeature")
    wrong = [
        f"{_name(path)}:{call.lineno} calls {_dotted(call.func)}"
        for path, tree in TREES.items()
        for call in _runs_at_import(tree.body)
        if (_dotted(call.func) or "").startswith(forbidden) and _dotted(call.func) not in declares
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_short():
    lengths = {_name(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    long = {name: length for name, length in lengths.items() if length > 320}
    assert not long, f"Split these: {long}"


def test_public_names_have_docstrings():
    """An overridden method may leave its description to the base class."""
    definitions = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    classes = [node for tree in TREES.values() for node in tree.body]
    classes = [node for node in classes if isinstance(node, ast.ClassDef)]
    described = KERAS_METHODS | {
        method.name
        for node in classes
        for method in node.body
        if isinstance(method, definitions) and ast.get_docstring(method)
    }
    missing = []
    for path, tree in TREES.items():
        if not ast.get_docstring(tree) and path.read_text("utf-8").strip():
            missing.append(_name(path))
        public = [n for n in tree.body if isinstance(n, definitions) and n.name[0] != "_"]
        for node in public:
            described_by_module = ("main", "get_config")
            if not ast.get_docstring(node) and node.name not in described_by_module:
                missing.append(f"{_name(path)}: {node.name}")
            missing += [
                f"{_name(path)}: {node.name}.{method.name}"
                for method in (node.body if isinstance(node, ast.ClassDef) else [])
                if isinstance(method, definitions)
                and method.name[0] != "_"
                and method.name not in described
                and not method.name.startswith("on_")  # of a Keras callback
            ]
    assert not missing, "Without a docstring:\n" + "\n".join(missing)


def _text_files():
    """The files under version control, or all but what is built if there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        ignored = (".venv", ".venv-addons", "venv", "runs", "data", "build", "dist")
        paths = [p for p in ROOT.rglob("*") if p.relative_to(ROOT).parts[0] not in ignored]
    for path in paths:
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            yield path, content.decode("utf-8", "replace")


def test_no_paths_of_one_machine():
    machine = re.compile(r"(?<![\w.:/~])/(?:home|Users|root|work|mnt|scratch)/\w|\b[A-Z]:\\Users")
    wrong = [
        f"{_name(path)}:{number}: {line.strip()[:80]}"
        for path, text in _text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if machine.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("host", ["deq-keras.invalid", "192.0.2.1"])
def test_tests_have_no_network(host):
    """The guard in conftest.py fails a test even where the error would be caught."""
    with pytest.raises(pytest.fail.Exception, match="without a network"):
        socket.create_connection((host, 80), timeout=1)


def test_tests_may_talk_to_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
