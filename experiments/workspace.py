"""A folder with the results of one configuration: checked first, never half written."""

import json
from pathlib import Path

from trainers.trainer import write_json


class Workspace:
    """The folder of a run.

    Args:
        path: The folder; made if it does not exist.
        config: The effective configuration, a nested dictionary. It is written beside the results,
            with the first of them: a run that fails earlier may be mended and tried again.

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
        self.config = json.loads(json.dumps(config))
        kept = self.path / "config.json"
        if kept.exists():
            old = _read(kept)
            if not isinstance(old, dict):
                raise ValueError(
                    f"{str(kept)!r} is damaged, so it is not known what {str(self.path)!r} holds. "
                    "Name another --workdir, or remove this one."
                )
            changes = list(_differences(old, self.config))
            if changes:
                raise ValueError(
                    f"{str(self.path)!r} holds results of another configuration "
                    f"({'; '.join(changes[:5])}). Name another --workdir, or remove this one."
                )

    def folder(self, *parts):
        """A folder inside, made if it does not exist."""
        folder = self.path.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", self.config)
        return folder

    def once(self, parts, work):
        """The result of `work()`, a JSON object; read instead if an earlier run has got so far.

        A damaged result counts as none: the work is done again.
        """
        path = self.folder(*parts) / "done.json"
        result = _read(path) if path.exists() else None
        if not isinstance(result, dict):
            write_json(path, work())
            result = _read(path)
        return result


def _read(path):
    """What a JSON file says, `None` if it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None


def _differences(old, new, prefix=""):
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from _differences(old[key], new[key], name + ".")
        elif old.get(key) != new.get(key):
            yield f"{name} was {old.get(key)!r}, is {new.get(key)!r}"
