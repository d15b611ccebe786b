"""State of a training: all that it must remember, as arrays and plain values.

Three kinds: what all replicas share (weights, optimizer), what each has of its own (the sums of
metrics, the seeds of dropout) and what is Python's (position, history, callbacks).
"""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.cluster.agreement import everyones
from trainers.process.errors import ConfigurationError

SEED = "seed_generator_state"  # how Keras calls the state of random layers


class ReplicaState:
    """What each replica has of its own: the sums of the metrics, and the seeds of random layers.

    A variable of a metric is summed over the replicas when it is read, and a restored one would be
    divided among them, with a rounding: a mean over an epoch would not be the same to the last bit.
    So each replica's own numbers are kept.

    Args:
        model: A Keras model whose metrics have been used once.
        strategy: Its `tf.distribute.Strategy`.
    """

    def __init__(self, model: keras.Model, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.metrics = [variable for metric in model.metrics for variable in metric.variables]
        known = {id(variable) for variable in self.metrics}
        # Integers cannot be averaged over the replicas, as moving statistics are.
        self.counters = [
            variable
            for variable in model.non_trainable_variables
            if id(variable) not in known and tf.as_dtype(variable.dtype).is_integer
        ]
        self._gather = tf.function(lambda: strategy.run(self._read), autograph=False)

    def separate_streams(self) -> None:
        """Give each replica random numbers of its own: from equal seeds all would draw the same."""

        def shift():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for variable in self.counters:
                if variable.path.endswith(SEED):
                    variable.assign(_shifted(variable.value, replica))

        if self.strategy.num_replicas_in_sync > 1:
            self.strategy.run(shift)

    def read(self) -> dict[str, np.ndarray]:
        """Arrays with a row for each replica. All workers must call it."""
        metrics, counters = self._gather()
        local = self.strategy.experimental_local_results
        return {"metrics": local(metrics)[0].numpy(), "counters": local(counters)[0].numpy()}

    def write(self, state: dict[str, np.ndarray]) -> None:
        """Put back what `read` gave, on any number of replicas."""
        metrics, counters = state["metrics"], state["counters"]
        replicas = self.strategy.num_replicas_in_sync
        same = len(metrics) == replicas
        if not same:
            total = metrics.sum(0, keepdims=True)
            metrics = np.concatenate([total, np.zeros((replicas - 1, total.shape[1]))])
            counters = np.repeat(counters[:1], replicas, 0)

        def put():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            _assign(self.metrics, tf.constant(metrics)[replica])
            _assign(self.counters, tf.constant(counters)[replica])

        self.strategy.run(put)
        if not same:
            self.separate_streams()

    def _read(self):
        return tuple(
            everyones(_flat(variables, dtype), self.strategy.num_replicas_in_sync)
            for variables, dtype in ((self.metrics, tf.float64), (self.counters, tf.int64))
        )


def _flat(variables, dtype):
    pieces = [tf.reshape(tf.cast(v.value, dtype), [-1]) for v in variables]
    return tf.concat([tf.zeros([0], dtype), *pieces], 0)


def _assign(variables, row):
    sizes = [int(np.prod(variable.shape)) for variable in variables]
    for variable, piece in zip(variables, tf.split(row, sizes) if sizes else (), strict=True):
        variable.assign(tf.cast(tf.reshape(piece, variable.shape), variable.dtype))


def _shifted(state, replica):
    step = tf.cast(tf.cast(replica, tf.int64) * 2654435761 % 2**32, state.dtype)
    return state + tf.stack([step, tf.zeros_like(step)])


def callback_state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """What a callback remembers: its `get_state()` if it has one, else its plain attributes.

    What its constructor was given is left out, so that a resumed run may change it.
    """
    name = {"name": type(callback).__name__}
    if hasattr(callback, "get_state"):
        return {**name, "state": callback.get_state()}
    parameters = inspect.signature(type(callback).__init__).parameters
    given = {*parameters, "params", "_params", "_model"}
    kept = {key: value for key, value in vars(callback).items() if key not in given}
    return {**name, "state": {key: value for key, value in kept.items() if _is_plain(value)}}


def restore_callback(callback: keras.callbacks.Callback, state: dict[str, Any]) -> None:
    """The opposite of `callback_state`."""
    if hasattr(callback, "set_state"):
        callback.set_state(state["state"])
    else:
        vars(callback).update(state["state"])


def _is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return (
        value is None
        or isinstance(value, (bool, int, float, str, np.generic, np.ndarray))
        and getattr(value, "dtype", np.dtype(float)).kind in "biufUS"
    )


def encode(content: Any) -> bytes:
    """Plain values, lists, dictionaries and arrays as bytes, exactly and without pickle.

    Raises:
        ConfigurationError: If there is anything else. Tuples become lists.
    """
    arrays: list[np.ndarray] = []

    def plain(value):
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "OV":
            arrays.append(np.asarray(value))
            return {"array": len(arrays) - 1, "scalar": isinstance(value, np.generic)}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": {key: plain(part) for key, part in value.items()}}
        if isinstance(value, (list, tuple)):
            return [plain(part) for part in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ConfigurationError(
            "Expected what is kept in a checkpoint (the `get_state` of a callback, say) to be made "
            "of plain values, arrays of numbers, lists, and dictionaries whose keys are strings. "
            f"Received: {value!r}."
        )

    text = json.dumps(plain(content))
    buffer = io.BytesIO()
    np.savez(buffer, text=np.array(text), **{f"a{n}": array for n, array in enumerate(arrays)})
    return buffer.getvalue()


def decode(data: bytes) -> Any:
    """The opposite of `encode`.

    Raises:
        ValueError: If the bytes are none that `encode` made.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:

            def full(value):
                if isinstance(value, list):
                    return [full(part) for part in value]
                if not isinstance(value, dict):
                    return value
                if "dict" in value:
                    return {key: full(part) for key, part in value["dict"].items()}
                array = file[f"a{value['array']}"]
                return array[()] if value["scalar"] else array

            return full(json.loads(str(file["text"])))
    except (OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"These bytes are not the state of a training: {error}") from None
