"""Options that are out of their range are refused by name; the others are kept as they are."""

import dataclasses
import json
import math

import pytest

from trainers.process.errors import ConfigurationError
from trainers.training.options import PRECISIONS, Options


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("accumulation", [0, -1, 1.0, "2", None, True]),
        ("max_skipped", [-1, 0.5, None, False]),
        ("keep", [0, -3, 2.0, None]),
        ("save_every", [0, -1, 1.5, True]),
        ("clip_norm", [0, 0.0, -1.0, math.inf, math.nan]),
        ("average", [0, 1, 0.0, 1.0, -0.1, 1.1, math.nan]),
        ("precision", ["float16", "mixed", "", None]),
        ("mode", ["best", "MIN", "", None]),
        ("monitor", [None, 3, ["val_loss"]]),
    ],
)
def test_value_out_of_range_is_refused_with_its_name(name, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=rf"`{name}` to be .*Received: {name}="):
            Options(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulation": 7, "keep": 1, "max_skipped": 0, "save_every": 1},
        {"clip_norm": 1, "average": 0.999, "monitor": "val_psnr", "mode": "max"},
        *({"precision": name} for name in PRECISIONS),
    ],
)
def test_as_dict_is_what_was_given_and_json_has_it_all(options):
    content = Options(**options).as_dict()
    assert Options(**json.loads(json.dumps(content))) == Options(**options)
    assert content == {**Options().as_dict(), **options}


def test_options_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().keep = 4


def test_unknown_option_is_refused():
    with pytest.raises(TypeError, match="clipnorm"):
        Options(clipnorm=1.0)
