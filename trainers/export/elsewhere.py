"""Program of its own: loads a SavedModel with TensorFlow alone and compares what it answers.

    python -I elsewhere.py SAVED_MODEL EXPECTED.npz

Prints a line of JSON: the largest difference of each signature, the seconds to the first answer.
"""

import time

BEGIN = time.perf_counter()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
# The export must run where none of these is installed.
sys.modules.update(dict.fromkeys(("deq_keras", "trainers", "experiments", "keras")))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def compare(path, file):
    """The largest difference for each signature, and the seconds to the first answer."""
    loaded = tf.saved_model.load(path)  # holds the variables
    arrays, differences, first = dict(np.load(file)), {}, None
    for case in sorted({name.rsplit("/", 2)[0] for name in arrays}):
        signature = case.split("/")[1]
        asked = {name: tf.constant(array) for name, array in _under(arrays, f"{case}/in/")}
        answer = loaded.signatures[signature](**asked)
        first = first or time.perf_counter() - BEGIN
        for name, wanted in _under(arrays, f"{case}/out/"):
            error = _difference(answer[name].numpy(), wanted)
            differences[signature] = max(differences.get(signature, 0.0), error)
    return {"differences": differences, "seconds": first}


def _under(arrays, prefix):
    return [(n.removeprefix(prefix), array) for n, array in arrays.items() if n.startswith(prefix)]


def _difference(found, wanted):
    """The largest difference, relative to the largest value where that is above one."""
    if wanted.dtype.kind == "S":
        return float(found.tolist() != wanted.tolist())
    found, wanted = (array.astype(np.complex128) for array in (found, wanted))
    same = found == wanted  # infinite ones as well
    error = np.abs(np.where(same, 0.0, found) - np.where(same, 0.0, wanted))
    return float(np.max(error)) / max(1.0, float(np.max(np.abs(np.where(same, 0.0, wanted)))))


if __name__ == "__main__":
    print(json.dumps(compare(*sys.argv[1:])))
