"""A folder with the results of one configuration: checked first, never half written."""

import json
from pathlib import Path

from trainers.process.errors import ConfigurationError
from trainers.process.files import make_writable, write_json
from trainers.training.checkpoints import differences


class Workspace:
    """The folder of a run.

    Args:
        path: The folder; made if it does not exist.
        config: The effective configuration, a nested dictionary. It is written beside the results,
            with the first of them: a run that fails earlier may be mended and tried again.
        may_change: Entries, as `"train.epochs"`, in which the results that are there may differ.
        writes: Whether this process writes there. One of many workers only looks.

    Raises:
        StorageError: If the folder cannot be written.
        ConfigurationError: If it holds results of another configuration.
    """

    def __init__(self, path, config, may_change=(), writes=True):
        self.path = Path(path)
        if writes:
            make_writable(self.path, "folder", "Name another one with --workdir.")
        self.config = json.loads(json.dumps(config))
        self.may_change = frozenset(may_change)
        kept = self.path / "config.json"
        if kept.exists():
            old = read_json(kept)
            if not isinstance(old, dict):
                raise ConfigurationError(
                    f"{str(kept)!r} is damaged, so it is not known what {str(self.path)!r} holds. "
                    "Name another --workdir."
                )
            matters = [without(entries, self.may_change) for entries in (old, self.config)]
            changes = list(differences(*matters))
            if changes:
                raise ConfigurationError(
                    f"{str(self.path)!r} holds results of another configuration "
                    f"({'; '.join(changes[:5])}). Name another --workdir."
                )

    def write_config(self):
        """Writes the configuration, unless it is there as it is."""
        kept = self.path / "config.json"
        if not kept.exists() or read_json(kept) != self.config:
            write_json(kept, self.config)

    def folder(self, *parts):
        """A folder inside, made if it does not exist."""
        folder = self.path.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config()
        return folder

    def once(self, parts, work):
        """The result of `work()`, a JSON object; read instead if an earlier run has got so far.

        A damaged result counts as none: the work is done again.
        """
        result = self.kept(parts)
        if result is None:
            write_json(self.folder(*parts) / "done.json", work())
            result = self.kept(parts)
        return result

    def kept(self, parts):
        """The result that an earlier run has kept by `once`, `None` if there is none."""
        path = self.path.joinpath(*parts, "done.json")
        result = read_json(path) if path.exists() else None
        return result if isinstance(result, dict) else None


def read_config(path):
    """The configuration that the results in a folder belong to.

    Raises:
        ConfigurationError: If there is none, or it is damaged.
    """
    kept = Path(path) / "config.json"
    try:
        config = read_json(kept)
    except OSError as error:
        raise ConfigurationError(
            f"Expected --workdir to be the folder of a training. {str(kept)!r} cannot be read: "
            f"{error.strerror}."
        ) from None
    if not isinstance(config, dict):
        raise ConfigurationError(f"{str(kept)!r} is damaged: the training must be started anew.")
    return config


def read_json(path):
    """What a JSON file says, `None` if it is damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None


def without(config, names):
    """A nested dictionary without the entries of some dotted names."""
    kept = {}
    for key, value in config.items():
        if key in names:
            continue
        prefix = key + "."
        if isinstance(value, dict):
            inner = {name[len(prefix) :] for name in names if name.startswith(prefix)}
            value = without(value, inner)
        kept[key] = value
    return kept
