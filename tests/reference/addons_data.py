"""What tensorflow-addons 0.23.0 computed, for the tests beside this file.

`make addons-reference` made the data, in an environment of its own (`addons/make_reference.py`).
Both sides of a comparison are float32, so the tolerances count roundings: `U` is the largest
relative error of one, and a sum of n terms takes at most n of them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

U = 2.0**-24
with np.load(Path(__file__).parent / "addons" / "addons_reference.npz") as _file:
    DATA = {key: _file[key] for key in _file.files}
CASES = json.loads(str(DATA["cases"]))
VERSIONS = json.loads(str(DATA["versions"]))


def case(part, name):
    """The arguments of a case and its arrays by their names."""
    prefix = f"{part}/{name}/"
    arrays = {k.removeprefix(prefix): a for k, a in DATA.items() if k.startswith(prefix)}
    assert arrays
    return CASES[part][name], arrays


def cases(part):
    return pytest.mark.parametrize("name", sorted(CASES[part]))


def inputs(key):
    return DATA[f"inputs/{key}"]
