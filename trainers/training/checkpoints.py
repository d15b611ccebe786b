"""Checkpoints that are whole or not there, of this configuration or refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainers.process.errors import ConfigurationError, StorageError
from trainers.process.files import literal
from trainers.training.state import decode, encode

_HOST = "host/.ATTRIBUTES/VARIABLE_VALUE"
_UNREADABLE = (OSError, ValueError, LookupError, tf.errors.OpError)


class Checkpoints:
    """The last checkpoints of a training, and the best one.

    A checkpoint is one `tf.train.Checkpoint`: the values of the variables and, as a string beside
    them, everything that Python knows. TensorFlow writes its index last, and each tensor with a
    checksum; one that is damaged all the same is passed over for the one before.

    Args:
        folder: Where they are kept: `checkpoints/` and `best/` in it.
        variables: Keras variables, alike on all replicas.
        keep: Number of the last checkpoints that are kept.
        config: What a checkpoint must have been made with: a nested dictionary, as JSON has it.
    """

    def __init__(
        self, folder: Path, variables: list[keras.Variable], keep: int, config: dict[str, Any]
    ):
        self.folder = folder
        self._host = tf.Variable("", dtype=tf.string, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            values=[variable.value for variable in variables], host=self._host
        )
        self._keep = keep
        self.config = json.loads(json.dumps(config))
        self.manifest = [
            [variable.path, list(variable.shape), tf.as_dtype(variable.dtype).name]
            for variable in variables
        ]

    def save(self, step: int, host: dict[str, Any], which: str = "latest") -> None:
        """Write a checkpoint, then forget those that are too old.

        Args:
            step: Its number.
            host: What Python knows: plain values and arrays.
            which: `"latest"`, or `"best"`, of which one is kept.

        Raises:
            StorageError: If it cannot be written. Those that are there stay.
        """
        about = {"config": self.config, "manifest": self.manifest}
        folder, keep = self._place(which), 1 if which == "best" else self._keep
        try:
            self._host.assign(encode({**about, "host": host}))
            self._checkpoint.write(str(folder / f"ckpt-{step}"))
            for path, _ in list(self._found(folder))[keep:]:
                path.unlink()
            self._tidy(folder)
        except (OSError, tf.errors.OpError) as error:
            raise StorageError(
                f"The checkpoint of step {step} cannot be written to {str(folder)!r}: "
                f"{_line(error)}. The checkpoints before it are still there. Make room, or make "
                "the folder writable, and run the same command again."
            ) from None
        finally:
            self._host.assign("")

    def load(self, which: str = "latest") -> dict[str, Any] | None:
        """Restore the newest checkpoint that can be read.

        Args:
            which: `"latest"` or `"best"`.

        Returns:
            What Python knew; `None` if there is no checkpoint.

        Raises:
            ConfigurationError: If it was made with another configuration, or for another model.
            StorageError: If there are checkpoints, and none can be read.
        """
        place, problems = self._place(which), []
        with literal(place) as readable:
            for path, prefix in self._found(place):
                name = os.path.join(readable, path.stem)
                try:
                    about = decode(tf.train.load_checkpoint(name).get_tensor(_HOST))
                except (*_UNREADABLE, RuntimeError) as error:
                    problems.append(f"{path.name}: {_line(error)}")
                    continue
                self._compare(about, prefix)
                try:
                    self._checkpoint.read(name).assert_consumed()
                except (*_UNREADABLE, AssertionError) as error:
                    problems.append(f"{path.name}: {_line(error)}")
                    continue
                finally:
                    self._host.assign("")
                return about["host"]
        if problems:
            raise StorageError(
                f"None of the checkpoints in {str(place)!r} can be read. They stay as they are: "
                f"put back a copy, or name another folder to train anew. {'; '.join(problems)}"
            )
        return None

    def _place(self, which):
        return self.folder / {"latest": "checkpoints", "best": "best"}[which]

    def _found(self, folder) -> Iterator[tuple[Path, str]]:
        """The checkpoints of a folder, the newest first: the path of the index, and the prefix."""
        numbered = []
        for path in folder.glob("ckpt-*.index"):
            if match := re.fullmatch(r"ckpt-(\d+)\.index", path.name):
                numbered.append((int(match.group(1)), path))
        for _, path in sorted(numbered, reverse=True):
            yield path, str(path.with_suffix(""))

    def _tidy(self, folder):
        """Remove what is of no checkpoint: of one that was forgotten, or whose save was killed."""
        for path in folder.glob("ckpt-*_temp"):
            shutil.rmtree(path)
        # A checkpoint without an index does not count; so the index is what is removed first.
        for path in folder.glob("ckpt-*.data-*"):
            if not path.with_suffix(".index").exists():
                path.unlink()

    def _compare(self, about, prefix):
        changes = list(differences(about["config"], self.config))
        if changes:
            raise ConfigurationError(
                f"{prefix!r} was made with another configuration ({'; '.join(changes[:5])}). Name "
                "another folder."
            )
        old, new = about["manifest"], self.manifest
        for before, now in zip(old, new, strict=False):
            if before[1:] != now[1:]:
                raise ConfigurationError(
                    f"{prefix!r} is of another model: {before[0]!r} has shape {before[1]} and "
                    f"dtype {before[2]} in it, and {now[0]!r} is {now[1]}, {now[2]} now. Name "
                    "another folder."
                )
        if len(old) != len(new):
            raise ConfigurationError(
                f"{prefix!r} is of another model: it has {len(old)} variables, and the model and "
                f"its optimizer have {len(new)}. Name another folder."
            )


def differences(old: dict, new: dict, prefix: str = "") -> Iterator[str]:
    """What differs between two nested dictionaries, in words."""
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from differences(old[key], new[key], name + ".")
        elif old.get(key) != new.get(key):
            yield f"{name} was {old.get(key)!r}, is {new.get(key)!r}"


def _line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
