"""A folder with the results of one configuration: checked first, never half written."""

import json
from pathlib import Path

from trainers.trainer import write_json


class Workspace:
    """The folder of a run.

    Args:
        path: The folder; made if it does not exist.
        config: The effective configuration, a nested dictionary. It is written beside the results.

    Raises:
        ValueError: If the folder cannot be written, or holds results of another configuration.
    """

    def __init__(self, path, config):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"Cannot write to the working directory {str(self.path)!r}: {error.strerror}. "
                "Name another one with --workdir."
            ) from None
        config = json.loads(json.dumps(config))
        kept = self.path / "config.json"
        if kept.exists():
            changes = list(_differences(json.loads(kept.read_text("utf-8")), config))
            if changes:
                raise ValueError(
                    f"{str(self.path)!r} holds results of another configuration "
                    f"({'; '.join(changes[:5])}). Name another --workdir, or remove this one."
                )
        else:
            write_json(kept, config)

    def folder(self, *parts):
        """A folder inside, made if it does not exist."""
        folder = self.path.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def once(self, parts, work):
        """The result of `work()`, a JSON value; read instead if an earlier run has got so far."""
        path = self.folder(*parts) / "done.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        result = work()
        write_json(path, result)
        return json.loads(path.read_text("utf-8"))


def _differences(old, new, prefix=""):
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from _differences(old[key], new[key], name + ".")
        elif old.get(key) != new.get(key):
            yield f"{name} was {old.get(key)!r}, is {new.get(key)!r}"
