"""Check of TensorFlow and Keras at import, with an error that says what to do about it.

TensorFlow is no dependency of the wheel, because several distributions install the same module
(`tensorflow`, `tensorflow-cpu`, a vendor's CUDA build): pip would put a second one over the
first. So its presence and the versions are checked here, when `deq_keras` is imported.
"""

import os
import re

# The same as in setup.py (a test compares them).
MIN_TENSORFLOW = (2, 20)
MIN_KERAS = (3, 12)

_INSTALL = (
    "Install it with one of\n"
    '    pip install "deq_keras[cpu]"    # for a CPU\n'
    '    pip install "deq_keras[gpu]"    # for NVIDIA GPUs, with the CUDA libraries\n'
    "or keep a build of your own (version {minimum} or newer) and\n"
    "    pip install deq_keras           # adds Keras and NumPy, leaves TensorFlow alone"
)


def _dotted(version):
    return ".".join(str(part) for part in version)


def _older(version, minimum):
    """Whether a version such as "2.20.0", "2.21.0-rc1" or "2.22.0.dev1+nv" is below `minimum`."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is None or tuple(int(number) for number in numbers.groups()) < minimum


def _import_tensorflow():
    install = _INSTALL.format(minimum=_dotted(MIN_TENSORFLOW))
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise ImportError(
                f"TensorFlow is installed, but a module that it needs is not: {error}. {install}"
            ) from error
        raise ImportError(
            f"deq_keras needs TensorFlow, and no module named 'tensorflow' was found. {install}"
        ) from error
    except ImportError as error:  # a library that does not load, a build for another machine
        raise ImportError(
            f"TensorFlow is installed, but it cannot be imported: {error}. {install}"
        ) from error
    version = getattr(tensorflow, "__version__", None)
    if version is None:  # folders left by an uninstalled TensorFlow import as an empty package
        raise ImportError(
            "A package 'tensorflow' was found that has no version: the rest of an incomplete "
            f"installation in {list(getattr(tensorflow, '__path__', []))}. Delete it. {install}"
        )
    if _older(version, MIN_TENSORFLOW):
        raise ImportError(
            f"deq_keras needs TensorFlow {_dotted(MIN_TENSORFLOW)} or newer, and found {version} "
            f"in {os.path.dirname(tensorflow.__file__)}. Upgrade it where it came from, or remove "
            f"it first. {install}"
        )


def _other_backend(backend):
    """The error for a Keras that runs, or tries to run, on another backend."""
    source = (
        f"KERAS_BACKEND={backend} in the environment"
        if os.environ.get("KERAS_BACKEND") == backend
        else "the file keras.json (in ~/.keras, or in KERAS_HOME)"
    )
    return RuntimeError(
        "deq_keras runs on the TensorFlow backend of Keras. Expected "
        f"keras.backend.backend() == 'tensorflow', found {backend!r}, chosen by {source}. "
        "Set KERAS_BACKEND=tensorflow before Keras is first imported, or "
        '"backend": "tensorflow" in ~/.keras/keras.json, and start Python again.'
    )


def _import_keras():
    upgrade = f'pip install --upgrade "keras>={_dotted(MIN_KERAS)}"'
    try:
        import keras
    except ImportError as error:
        chosen = os.environ.get("KERAS_BACKEND")
        if chosen and chosen != "tensorflow":  # and what that backend needs is not installed
            raise _other_backend(chosen) from error
        raise ImportError(
            f"deq_keras needs Keras {_dotted(MIN_KERAS)} or newer with its TensorFlow backend, "
            f"and Keras cannot be imported: {error}. Run\n    {upgrade}\n"
            "or, if ~/.keras/keras.json names another backend, set KERAS_BACKEND=tensorflow."
        ) from error
    version = getattr(keras, "__version__", "one without a version")
    if _older(version, MIN_KERAS):
        raise ImportError(
            f"deq_keras needs Keras {_dotted(MIN_KERAS)} or newer, and found {version}. Run\n"
            f"    {upgrade}"
        )
    if keras.backend.backend() != "tensorflow":
        raise _other_backend(keras.backend.backend())


_import_tensorflow()
_import_keras()
