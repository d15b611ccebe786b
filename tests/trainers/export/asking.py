"""Program of its own: asks an export with TensorFlow alone, and prints the answers as JSON.

python -I asking.py SAVED_MODEL INPUTS.npz
"""

import gc
import json
import sys

gc.disable()  # nothing of what is imported is garbage
sys.modules.update(dict.fromkeys(("deq_keras", "trainers", "experiments", "keras")))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def listed(answer):
    return {name: tensor.numpy().tolist() for name, tensor in answer.items()}


def refused(function, **inputs):
    """The message of the error that an answer ends with, empty if there is none."""
    try:
        function(**inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def warm_up(path, signatures):
    """Answers the requests of the export itself, as TensorFlow Serving does; whose they are."""
    try:
        from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog
    except ImportError:
        return None
    found = {"models": [], "signatures": []}
    file = f"{path}/assets.extra/tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
        request = PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        signatures[name](**inputs)
        found["models"].append(request.model_spec.name)
        found["signatures"].append(name)
    return found


def ask(path, file):
    loaded = tf.saved_model.load(path)
    signatures = loaded.signatures
    arrays = np.load(file)
    y, mask, target = (tf.constant(arrays[name]) for name in ("y", "mask", "target"))
    default, diagnose = signatures["serving_default"], signatures["diagnose"]
    found = {"signatures": sorted(signatures), "warm up": warm_up(path, signatures)}
    own = {"tolerance": tf.zeros(1), "max_steps": tf.zeros(1, tf.int32)}
    found["batch"] = listed(default(measurement=y, data=mask))
    found["singles"] = [
        listed(default(measurement=y[n : n + 1], data=mask[n : n + 1])) for n in range(len(y))
    ]
    found["own"] = listed(diagnose(measurement=y, data=mask, **own))
    limits = {"tolerance": tf.constant([1e-1, 0.0]), "max_steps": tf.constant([0, 2])}
    found["limited"] = listed(diagnose(measurement=y, data=mask, **limits))
    # The derivative around the call, against that of the signature.
    with tf.GradientTape() as tape:
        tape.watch(y)
        image = default(measurement=y, data=mask)["reconstruction"]
        loss = tf.reduce_sum(tf.reduce_mean((image - target) ** 2, axis=[1, 2, 3]))
    found["tape"] = tape.gradient(loss, y).numpy().tolist()
    found["gradient"] = listed(signatures["gradient"](measurement=y, data=mask, target=target))
    # Wrong requests, and a right one after each.
    nan = y.numpy()
    nan[1, 2, 3] = np.nan
    wrong = {
        "nan": (tf.constant(nan), mask),
        "infinite mask": (y, mask / 0.0),
        "empty": (y[:0], mask[:0]),
        "no pixels": (y[:, :0, :0], mask[:, :0, :0]),
        "rank": (y[0], mask[0]),
        "channels": (tf.repeat(y, 3, axis=3), mask),
        "counts": (y, mask[:1]),
        "large": (tf.zeros((1, 65, 64, 1)), tf.ones((1, 65, 64, 1))),
    }
    found["refused"] = {
        name: refused(default, measurement=one, data=other) for name, (one, other) in wrong.items()
    }
    found["again"] = listed(default(measurement=y, data=mask))
    limits = {"tolerance": tf.zeros(3), "max_steps": tf.zeros(1, tf.int32)}
    found["refused"]["limits"] = refused(diagnose, measurement=y, data=mask, **limits)
    files = {name: arrays[name].tolist() for name in ("files", "masks")}
    answer = signatures["encoded"](
        measurement_bytes=tf.constant(files["files"]), data_bytes=tf.constant(files["masks"])
    )
    images = [tf.io.decode_png(one, dtype=tf.uint16) for one in answer["reconstruction_bytes"]]
    found["encoded"] = {
        "images": [image.numpy().tolist() for image in images],
        "depths": [one.numpy()[24] for one in answer["reconstruction_bytes"]],
        "converged": answer["converged"].numpy().tolist(),
    }
    found["refused files"] = {
        name: refused(
            signatures["encoded"],
            measurement_bytes=tf.constant([files["files"][0], content]),
            data_bytes=tf.constant(files["masks"][:2]),
        )
        for name, content in zip(arrays["bad names"], arrays["bad"].tolist(), strict=True)
    }
    integers = tf.constant(arrays["integers"])
    found["uint8"] = listed(signatures["uint8"](measurement=integers, data=mask))
    exact = default(measurement=tf.cast(integers, tf.float32) / 255.0, data=mask)
    found["of integers"] = listed(exact)
    return found


if __name__ == "__main__":
    print(json.dumps(ask(*sys.argv[1:])))
