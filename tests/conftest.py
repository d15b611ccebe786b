"""What every test shares: the environment of TensorFlow, seeds, and a clean Keras."""

import functools
import gc
import ipaddress
import os
import socket
import sys

import psutil
import pytest

from tests.seeds import Seeds

# All of this must be in the environment before TensorFlow is imported; programs that tests
# start inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
if os.environ.get("DEQ_KERAS_TEST_DEVICE") == "gpu":
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the workers share it
else:
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# The workers divide the cores; with a full pool of threads each they would wait for each other.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
_THREADS = max(1, _CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = str(_THREADS)


SEEDS = Seeds()


def pytest_configure(config):
    """Splits the CPU into two devices, so that any test can distribute over them.

    It must be done before TensorFlow's first operation, hence for all tests alike. Without an
    explicit device everything still runs on the first one.
    """
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process only hands out tests to its workers
    gc.disable()  # nothing of what is imported is garbage; see `pytest_collection_finish`
    try:
        import tensorflow as tf
    except ImportError:
        return  # deq_keras says it better
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    SEEDS.watch()


def pytest_collection_finish(session):
    """Lets the garbage collector run less often: about a tenth of the time of a test goes to it.

    It looks at the million objects of the imported modules each time, which stay, and at the graph
    that is being traced. After each module of tests all of it is collected (`release_memory`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items):
    """The file that waits for processes comes first: at the end nobody would use the other core."""
    items.sort(key=lambda item: item.path.name != "test_workers.py")


def _is_local(host):
    """Whether a host is this machine, as far as a test may know it: no name is looked up."""
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses()


@functools.cache
def _own_addresses():
    entries = [entry for several in psutil.net_if_addrs().values() for entry in several]
    return {entry.address.split("%")[0] for entry in entries}


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Fails a test that reaches for the network through Python; this machine is allowed."""

    def guard(original, host_of):
        def guarded(*args, **kwargs):
            host = host_of(*args, **kwargs)
            if not _is_local(host):
                pytest.fail(f"This test tried to reach {host!r}. Tests run without a network.")
            return original(*args, **kwargs)

        return guarded

    def of_address(sock, address):
        # A Unix socket has a path for an address; it stays on this machine.
        return address[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else None

    def of_lookup(host, *args, **kwargs):
        return host

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guard(getattr(socket.socket, name), of_address))
        patch.setattr(socket, "getaddrinfo", guard(socket.getaddrinfo, of_lookup))
        yield


def _keras_settings(keras):
    import tensorflow as tf

    return {
        keras.config.set_dtype_policy: keras.config.dtype_policy(),
        keras.config.set_floatx: keras.config.floatx(),
        keras.config.set_epsilon: keras.config.epsilon(),
        keras.config.set_image_data_format: keras.config.image_data_format(),
        tf.config.run_functions_eagerly: tf.config.functions_run_eagerly(),
    }


@pytest.fixture(autouse=True)
def seeded_and_clean():
    """Seeds Python, NumPy and TensorFlow; undoes what a test changed of Keras's settings."""
    keras = sys.modules.get("keras")
    if keras is None:  # then no test module in this process uses it, and importing it is slow
        yield
        return
    SEEDS.set(keras)
    before = _keras_settings(keras)
    yield
    if _keras_settings(keras) != before:
        keras.utils.clear_session(free_memory=False)
        for restore, value in before.items():
            restore(value)


@pytest.fixture(scope="module", autouse=True)
def release_memory():
    """Drops the graphs and layer names of a test module once it is done."""
    yield
    SEEDS.forget()
    if "keras" in sys.modules:
        sys.modules["keras"].utils.clear_session(free_memory=False)
        gc.collect()
        gc.freeze()  # what stays is not looked through once more after the next module
