"""Presets: folders with the configuration of a prior, its weights, and a card."""

from __future__ import annotations

import json
from pathlib import Path

import keras

from deq_keras.checks import unknown_name_error
from deq_keras.config import deserialise, serialise
from deq_keras.priors import Prior

_OWN = Path(__file__).parent
_CONFIG, _WEIGHTS, _CARD = "prior.json", "prior.weights.h5", "card.json"
CARD = ("description", "channels", "parameters", "weight", "noise", "data", "command", "results")
CARD += ("time", "licence")


class _Holder(keras.Model):
    """Keras saves weights of models, and a prior is a layer."""

    def __init__(self, prior, channels):
        super().__init__()
        self.prior = prior
        if not prior.built:
            prior.build((None, None, None, channels))
        self.built = True


def names() -> tuple[str, ...]:
    """The presets that come with the package.

    Example:

    >>> "wcrr_bsd400" in deq_keras.presets.names()
    True
    """
    return tuple(sorted(path.parent.name for path in _OWN.glob(f"*/{_CARD}")))


def card(name: str) -> dict:
    """What a preset says of itself.

    Args:
        name: One of `names()`, or a folder that `save` wrote.

    Returns:
        Dictionary with the entries `description`, `channels` of the images, `parameters`, `weight`
        (the `lambda` that belongs to it), `noise` (its standard deviation in training, on [0, 1]),
        `data`, `command`, `results`, `time` and `licence`.

    Raises:
        ValueError: If there is no such preset, with the nearest known name.

    Example:

    >>> deq_keras.presets.card("wcrr_bsd400")["noise"]
    0.1
    """
    return json.loads((_folder(name) / _CARD).read_text("utf-8"))


def load(name: str) -> Prior:
    """The prior of a preset, with its weights.

    Args:
        name: One of `names()`; a folder that `save` wrote; or the address of a Keras model with one
            prior in it, such as `"hf://user/model"` or a `.keras` file, which Keras loads.

    Raises:
        ValueError: If there is no such preset, with the nearest known name; or if the model that
            Keras loaded does not hold exactly one prior.

    Example:

    >>> prior = deq_keras.presets.load("wcrr_bsd400")
    >>> prior.gradient(tf.random.uniform((1, 32, 32, 1))).shape
    TensorShape([1, 32, 32, 1])
    """
    name = str(name)
    if "://" in name or name.endswith(".keras"):
        return _prior_of(keras.saving.load_model(name), name)
    folder = _folder(name)
    config = json.loads((folder / _CONFIG).read_text("utf-8"))
    prior = deserialise({"prior": config}, "prior")["prior"]
    _Holder(prior, card(name)["channels"]).load_weights(folder / _WEIGHTS)
    return prior


def save(prior: Prior, folder, card: dict):
    """Writes a preset into a folder, which is made if it does not exist.

    Args:
        prior: A built prior.
        folder: Where. The files of a preset that is there are replaced.
        card: The entries that `deq_keras.presets.card` names.

    Raises:
        ValueError: If the prior is not built, or the card lacks entries or has others.

    Example:

    >>> import tempfile
    >>> prior = deq_keras.presets.load("wcrr_bsd400")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     deq_keras.presets.save(prior, folder, deq_keras.presets.card("wcrr_bsd400"))
    ...     again = deq_keras.presets.load(folder)
    >>> u = tf.random.uniform((1, 32, 32, 1))
    >>> np.array_equal(again.gradient(u), prior.gradient(u))
    True
    """
    if not prior.built:
        raise ValueError(f"Expected a prior that was built. Received {prior!r}.")
    if set(card) != set(CARD):
        raise ValueError(
            f"Expected a card with the entries {sorted(CARD)}. Received {sorted(card)}."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).write_text(json.dumps(serialise(prior), indent=2) + "\n", "utf-8")
    _Holder(prior, card["channels"]).save_weights(folder / _WEIGHTS)
    (folder / _CARD).write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def _folder(name):
    for folder in (_OWN / str(name), Path(name)):
        if (folder / _CARD).is_file():
            return folder
    raise unknown_name_error("preset", name, names())


def _prior_of(model, name):
    found = [layer for layer in model._flatten_layers() if isinstance(layer, Prior)]
    # What another prior is made of is a part of that.
    inner = {id(part) for one in found for part in one._flatten_layers(include_self=False)}
    found = [one for one in found if id(one) not in inner]
    if len(found) != 1:
        raise ValueError(
            f"Expected a model with one prior in it. Received {name!r}, which holds {len(found)}."
        )
    return found[0]
