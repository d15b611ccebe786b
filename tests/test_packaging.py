"""The wheel, what it asks for, and what an import says where something is missing."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = re.compile(r">=(\d+)\.(\d+)")
LOOK_UPS = (".find_spec", ".import_module", ".importorskip", "need")
# The distribution that an imported module belongs to, where the name differs.
DISTRIBUTIONS = {"absl": "absl-py", "PIL": "pillow", "skimage": "scikit-image"}
DISTRIBUTIONS |= {"google": "protobuf", "grpc": "grpcio"}
DISTRIBUTIONS["tensorflow_datasets"] = "tensorflow-datasets"
DISTRIBUTIONS["yaml"] = "pyyaml"


def _canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(message, extra=None):
    """The requirements of the wheel, or of one extra, from distribution to the whole line."""
    lines = message.get_all("Requires-Dist")
    quoted = re.compile(r"extra == ['\"]([\w-]+)['\"]")
    chosen = [line for line in lines if quoted.findall(line) == ([extra] if extra else [])]
    return {_canonical(re.match(r"[\w.-]+", line).group()): line for line in chosen}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that nothing built before can get into it."""
    setuptools = tuple(int(part) for part in metadata.version("setuptools").split(".")[:2])
    if setuptools < (70, 1):
        pytest.skip(f"needs setuptools 70.1 or newer (the extra `test`), found {setuptools}")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("deq_keras", "trainers", "experiments", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "deq_keras_programs.py"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--disable-pip-version-check", "--wheel-dir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def message(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_the_wheel_holds_the_library_alone(wheel):
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"deq_keras", "deq_keras_programs.py"}
    library = ROOT / "deq_keras"
    sources = {path.relative_to(ROOT).as_posix() for path in library.rglob("*.py")}
    presets = {p.relative_to(ROOT).as_posix() for p in (library / "presets").glob("*/*.*")}
    presets = {path for path in presets if "__pycache__" not in path}
    assert {Path(path).name for path in presets} == {"card.json", "prior.json", "prior.weights.h5"}
    others = {"deq_keras/py.typed", "deq_keras_programs.py"}
    assert set(names) == sources | presets | others
    (entry,) = [name for name in wheel.namelist() if name.endswith("/entry_points.txt")]
    assert b"deq-keras = deq_keras_programs:main" in wheel.read(entry)
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_it_asks_for_keras_and_numpy_only(message):
    assert set(_requirements(message)) == {"keras", "numpy"}
    extras = {"cpu", "gpu", "train", "export", "serve", "benchmark", "test"}
    extras |= {"plot", "docs", "release"}
    assert set(message.get_all("Provides-Extra")) == extras
    assert message["Requires-Python"] == ">=3.10"


def test_only_the_extras_cpu_and_gpu_install_tensorflow(message):
    assert set(_requirements(message, "cpu")) == {"tensorflow", "tensorflow-cpu"}
    assert set(_requirements(message, "gpu")) == {"tensorflow"}
    for extra in ("train", "export", "serve", "benchmark", "test", "plot", "docs", "release"):
        assert not {"tensorflow", "tensorflow-cpu"} & set(_requirements(message, extra))


@pytest.mark.parametrize(
    ("platform", "machine", "expected"),
    [
        ("linux", "x86_64", "tensorflow-cpu"),
        ("win32", "AMD64", "tensorflow-cpu"),
        ("linux", "aarch64", "tensorflow"),
        ("darwin", "arm64", "tensorflow"),
    ],
)
def test_the_extra_cpu_fits_the_platform(message, platform, machine, expected):
    requirements = pytest.importorskip("packaging.requirements")
    environment = {"sys_platform": platform, "platform_machine": machine, "extra": "cpu"}
    chosen = [
        name
        for name, line in _requirements(message, "cpu").items()
        if requirements.Requirement(line).marker.evaluate(environment)
    ]
    assert chosen == [expected]


def test_versions_agree(message):
    version = re.search(r'"(.+)"', (ROOT / "deq_keras" / "_version.py").read_text("utf-8"))
    constants = {}
    for node in ast.parse((ROOT / "deq_keras" / "_backend.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id.startswith("MIN_"):
            constants[node.targets[0].id] = ast.literal_eval(node.value)

    def minimum(line):
        return tuple(int(number) for number in NUMBERS.search(line).groups())

    assert message["Version"] == re.search(r'__version__ = "(.+)"', version.string).group(1)
    assert minimum(_requirements(message)["keras"]) == constants["MIN_KERAS"]
    for extra in ("cpu", "gpu"):
        for line in _requirements(message, extra).values():
            assert minimum(line) == constants["MIN_TENSORFLOW"]


def test_the_conda_recipe_agrees(message):
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text("utf-8"))
    assert recipe["context"]["version"] == message["Version"]
    licence = message["License-Expression"] or message["License"]  # by the age of setuptools
    assert recipe["about"]["license"] == licence
    assert recipe["about"]["summary"] == message["Summary"]
    minimum = {}
    for line in recipe["requirements"]["run"]:
        name, number = line.split(" >=")
        minimum[name] = f">={number}"
    needed = {**_requirements(message), **_requirements(message, "gpu")}
    expected = {name: NUMBERS.search(line).group() for name, line in needed.items()}
    assert minimum == {"python": message["Requires-Python"], **expected}
    (setuptools,) = [x for x in recipe["requirements"]["host"] if x.startswith("setuptools")]
    assert setuptools.replace(" ", "") in (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_package_has_its_version():
    import deq_keras
    from deq_keras._version import __version__

    assert deq_keras.__version__ == __version__


def _third_party(*folders):
    """The distributions whose modules the files in these folders import or look for."""
    modules = set()
    files = [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    # A program with requirements of its own beside it runs in an environment of its own.
    files = [p for p in files if not p.with_name("requirements.txt").exists()]
    for node in (n for p in files for n in _nodes(p)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(LOOK_UPS):
            modules |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    tops = {module.split(".")[0] for module in modules} - sys.stdlib_module_names
    tops -= {
        "deq_keras",
        "deq_keras_programs",
        "trainers",
        "experiments",
        "benchmarks",
        "docs",
        "tests",
        "tensorflow",
    }
    return {_canonical(DISTRIBUTIONS.get(module, module)) for module in tops}


def _nodes(path):
    return ast.walk(ast.parse(path.read_text("utf-8")))


def test_what_the_programs_import_is_declared(message):
    """The third-party modules of the other packages are the extras `train`, `export`, `serve` and
    `benchmark`, no more."""
    used = _third_party("trainers", "experiments", "benchmarks")
    extras = ("train", "export", "serve", "benchmark")
    declared = {name for extra in extras for name in _requirements(message, extra)}
    missing = used - declared - set(_requirements(message))
    assert not missing, f"Imported and not declared in setup.py: {missing}"
    # Imported by tensorflow-datasets, and by Keras's callback of this name.
    unused = declared - used - {"importlib-resources", "tensorboard"}
    assert not unused, f"Declared in setup.py and imported by nothing: {unused}"


def test_what_the_tests_import_is_declared(message):
    known = [_requirements(message, extra) for extra in (None, "train", "serve", "test")]
    # It asks for a distribution of TensorFlow, so the Makefile installs it by itself.
    known.append({"tensorflow-serving": None})
    missing = _third_party("tests") - {name for names in known for name in names}
    assert not missing, f"Imported and not declared in setup.py: {missing}"


# Importing deq_keras where something is missing. The modules are stand-ins.
FAKE_TENSORFLOW = {"tensorflow/__init__.py": "__version__ = '2.20.0'"}
FAKE_KERAS = {
    "keras/__init__.py": "from keras import backend\n__version__ = '3.12.0'",
    "keras/backend.py": "def backend(): return 'tensorflow'",
}
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def _import(folder, files=(), blocked=(), statement="import deq_keras", **environment):
    """Imports in a process of its own; returns the exit status and the last error."""
    for name, text in dict(files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    path = os.pathsep.join([str(folder), str(ROOT)])
    code = BLOCK.format(blocked=tuple(blocked)) + statement
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("files", "blocked", "expected"),
    [
        ({}, ["tensorflow"], ["ImportError", "no module named 'tensorflow'", "INSTALL"]),
        (
            {"tensorflow/__init__.py": "import a_part_of_it"},
            [],
            ["ImportError", "a_part_of_it", "INSTALL"],
        ),
        (
            {"tensorflow/__init__.py": "raise ImportError('libcudart.so.12: not found')"},
            [],
            ["ImportError", "cannot be imported: libcudart.so.12", "INSTALL"],
        ),
        (
            {"tensorflow/__init__.py": ""},
            [],
            ["ImportError", "has no version", "Delete it", "INSTALL"],
        ),
        (
            {"tensorflow/__init__.py": "__version__ = '2.9.3'"},
            [],
            ["ImportError", "2.20 or newer, and found 2.9.3", "INSTALL"],
        ),
        (FAKE_TENSORFLOW, ["keras"], ["ImportError", "Keras 3.12", 'pip install --upgrade "keras']),
        (
            {**FAKE_TENSORFLOW, "keras/__init__.py": "__version__ = '2.15.0'"},
            [],
            ["ImportError", "Keras 3.12 or newer, and found 2.15.0", "pip install --upgrade"],
        ),
    ],
    ids=["absent", "incomplete", "broken", "leftover", "old", "no-keras", "old-keras"],
)
def test_a_missing_backend_is_explained(tmp_path, files, blocked, expected):
    status, error = _import(tmp_path, files, blocked)
    assert status == 1
    install = ['"deq_keras[cpu]"', '"deq_keras[gpu]"', "pip install deq_keras "]
    for text in [*expected[:-1], *(install if expected[-1] == "INSTALL" else expected[-1:])]:
        assert text in error


@pytest.mark.parametrize("version", ["2.20.0", "2.21.0-rc1", "2.30.0.dev20300101", "10.0+nv"])
def test_newer_versions_are_accepted(tmp_path, version):
    files = {**FAKE_KERAS, "tensorflow/__init__.py": f"__version__ = {version!r}"}
    # Only the checks are run, since the stand-ins have nothing that the rest could use.
    code = f"import runpy; runpy.run_path({str(ROOT / 'deq_keras' / '_backend.py')!r})"
    status, error = _import(tmp_path, files, statement=code)
    assert status == 0, error


def test_another_keras_backend_is_refused(tmp_path):
    # The Keras that is installed, whether or not what its NumPy backend needs is there as well.
    status, error = _import(tmp_path, FAKE_TENSORFLOW, KERAS_BACKEND="numpy")
    assert status == 1
    for text in (
        "RuntimeError",
        "found 'numpy', chosen by KERAS_BACKEND=numpy in the environment",
        "Set KERAS_BACKEND=tensorflow before Keras is first imported",
    ):
        assert text in error


def test_another_backend_in_the_file_of_keras_is_refused(tmp_path):
    backend = {"keras/backend.py": "def backend(): return 'torch'"}
    files = {**FAKE_TENSORFLOW, **FAKE_KERAS, **backend}
    status, error = _import(tmp_path, files, KERAS_BACKEND="")
    assert status == 1
    assert "found 'torch', chosen by the file keras.json" in error
