"""Strategies of `tf.distribute` by name, or a clear error."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from trainers.cluster import guard, resolver
from trainers.cluster.rendezvous import meet
from trainers.process import exits
from trainers.process.errors import ConfigurationError, PeerLost, unknown_name

NAMES = ("none", "mirrored", "multi_worker", "tpu")

ALL_INTERFACES = "DEQ_KERAS_ALL_INTERFACES"


def get(
    name: str = "none", *, devices: int | None = None, cluster_timeout: float = 50.0
) -> tf.distribute.Strategy:
    """The strategy of a name. It must be called before TensorFlow does anything, and once only.

    Args:
        name: `"none"`: the default strategy, one device. `"mirrored"`: the GPUs of this machine, or
            logical CPU devices where there is none. `"multi_worker"`: this process is one of
            several, as `TF_CONFIG` says, or Slurm; each with its GPUs, or its CPU. `"tpu"`: the
            TPUs of this machine, or those that `TPU_NAME` names (not tested: no TPU was available).
        devices: For `"mirrored"`: number of GPUs, by default all; or of logical CPU devices, by
            default 2.
        cluster_timeout: Seconds to wait for all workers to come up.

    Raises:
        ConfigurationError: If the name is unknown, or the machine or the environment does not have
            what it needs.
        PeerLost: If a worker has not come up.
        AddressTaken: If another program listens at this worker's address.
    """
    if name not in NAMES:
        raise unknown_name("strategy", name, NAMES)
    if devices is not None and name != "mirrored":
        raise ConfigurationError(f"`devices` is for the strategy 'mirrored'. Received: {name!r}.")
    if name == "mirrored":
        return _mirrored(devices)
    if name == "multi_worker":
        return _multi_worker(cluster_timeout)
    if name == "tpu":
        return _tpu()
    return tf.distribute.get_strategy()


def _mirrored(devices):
    if devices is not None and (not isinstance(devices, int) or devices < 1):
        raise ConfigurationError(
            f"Expected `devices` to be an integer >= 1. Received: {devices!r}."
        )
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        if (devices or 1) > len(gpus):
            raise ConfigurationError(f"Expected {devices} GPUs. This machine has {len(gpus)}.")
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus[:devices]])
    wanted = devices or 2
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < wanted:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * wanted
            )
        except RuntimeError:
            raise ConfigurationError(
                f"The CPU cannot be split into {wanted} devices any more: TensorFlow has started. "
                "Call `strategy.get` before any operation of TensorFlow."
            ) from None
    names = [device.name for device in tf.config.list_logical_devices("CPU")[:wanted]]
    # Collective operations, the default, mix up the strategies of a process.
    return tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())


def _multi_worker(cluster_timeout):
    text = os.environ.get("TF_CONFIG")
    if text is not None:
        cluster = resolver.from_tf_config(text)
    elif resolver.in_slurm():
        # Each task has the GPUs that Slurm lets it see.
        cluster = resolver.from_slurm(os.environ)
    else:
        raise ConfigurationError(
            "The strategy 'multi_worker' takes the workers from TF_CONFIG, or from Slurm, and "
            "neither is in the environment. On one machine `python -m trainers.launch "
            "--num_workers=N -- COMMAND` sets TF_CONFIG."
        )
    resolver.check_port(cluster)
    meet(cluster, cluster_timeout)
    exits.serves = True
    simple = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=simple)
    except (tf.errors.OpError, RuntimeError) as error:
        raise PeerLost(
            f"Worker {cluster.index} could not join the others: {str(error).splitlines()[0]}."
        ) from None
    _restrict(cluster)
    return strategy


def _restrict(cluster):
    """TensorFlow's server listens on all interfaces: take it back to the cluster's."""
    if os.environ.get(ALL_INTERFACES) == "1":
        return
    try:
        found = guard.restrict(cluster.place(cluster.index)[1], guard.interface(cluster))
        problem = None if found else "the server was not found"
    except OSError as error:
        problem = str(error)
    if problem is not None:
        raise ConfigurationError(
            "TensorFlow's server listens on all interfaces, and could not be restricted to "
            f"{cluster.addresses[cluster.index]} ({problem}). Whoever reaches it can run code "
            f"here. If this machine's network is private, set {ALL_INTERFACES}=1."
        )


def _tpu():
    local = any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists()
    name = os.environ.get("TPU_NAME", "local" if local else "")
    if not name:
        raise ConfigurationError(
            "The strategy 'tpu' needs TPUs, and this machine has none: there is no /dev/accel*, "
            "and TPU_NAME is not set."
        )
    try:
        tpus = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(tpus)
        tf.tpu.experimental.initialize_tpu_system(tpus)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"The TPU {name!r} cannot be used: {str(error).splitlines()[0]}"
        ) from None
    return tf.distribute.TPUStrategy(tpus)
