"""Tensors as the Open Inference Protocol has them, for the servers of the tests."""

import numpy as np

KINDS = {"float32": "FP32", "int32": "INT32", "bool": "BOOL"}


def to_array(blob, kind, shape):
    name = {kserve: name for name, kserve in KINDS.items()}[kind]
    return np.frombuffer(blob, name).reshape(shape)


def metadata(served):
    for name, spec in served.specs().items():
        shape = [-1 if size is None else size for size in spec.shape]
        complex_ = spec.dtype.is_complex
        yield {
            "name": name,
            "datatype": KINDS[spec.dtype.name if not complex_ else "float32"],
            "shape": [*shape, 2] if complex_ else shape,
        }


def to_complex(served, arrays):
    specs = served.specs()
    return {
        k: v[..., 0] + 1j * v[..., 1] if specs[k].dtype.is_complex else v for k, v in arrays.items()
    }


NAMES = {kserve: name for name, kserve in KINDS.items()}
