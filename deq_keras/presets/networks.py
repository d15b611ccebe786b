"""Published networks from the weights of their authors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from deq_keras.denoisers import DRUNet
from deq_keras.presets.state import State


def drunet(tensors: Mapping, activation="relu", dtype: str | None = None) -> DRUNet:
    """The denoiser DRUNet, for grey or colour images.

    Args:
        tensors: `m_head.weight`, `m_down{i}.…`, `m_body.…`, `m_up{i}.…` and `m_tail.weight`.
        activation: As in `deq_keras.denoisers.DRUNet`: the published one has `"relu"`.
        dtype: Of the denoiser.

    Raises:
        ValueError: If a tensor is missing, has another shape, or is not among these.

    Reference:
        Zhang, Li, Zuo, Zhang, Van Gool and Timofte, Plug-and-play image restoration with deep
        denoiser prior, IEEE TPAMI 2022.

    Example:

    >>> shapes = {"m_head.weight": (4, 2, 3, 3), "m_tail.weight": (1, 4, 3, 3)}
    >>> shapes |= {"m_down1.1.weight": (6, 4, 2, 2), "m_up1.0.weight": (6, 4, 2, 2)}
    >>> blocks = {"m_down1.0": 4, "m_body.0": 6, "m_up1.1": 4}
    >>> shapes |= {f"{n}.res.{i}.weight": (c, c, 3, 3) for n, c in blocks.items() for i in (0, 2)}
    >>> tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    >>> deq_keras.presets.pytorch.drunet(tensors).filters
    (4, 6)
    """
    state = State("DRUNet", tensors)
    blocks = len(state.numbered("m_body.{}.res.0.weight"))
    levels = len(state.numbered("m_up{}.0.weight", 1))
    if not blocks:
        raise state.error("m_body.0.res.0.weight and so on", "no residual block")
    head = state.take("m_head.weight", (None, None, 3, 3))
    tail = state.take("m_tail.weight", (None, head.shape[0], 3, 3))
    extra = head.shape[1] - tail.shape[0]
    if extra not in (0, 1):
        raise state.error("m_head.weight with the channels of images, or one more", f"{head.shape}")
    filters, down, up = [head.shape[0]], [], []
    for level in range(1, levels + 1):
        down.append(state.take(f"m_down{level}.{blocks}.weight", (None, filters[-1], 2, 2)))
        filters.append(down[-1].shape[0])
        up.append(state.take(f"m_up{level}.0.weight", (filters[-1], filters[-2], 2, 2)))

    def residual(name, count, first=0):
        names = itertools.product(range(first, first + blocks), (0, 2))
        shape = count, count, 3, 3
        return [state.take(f"{name}.{i}.res.{j}.weight", shape) for i, j in names]

    found = DRUNet(tuple(filters), blocks, bool(extra), activation, dtype=dtype)
    shape = (None, None, None, tail.shape[0])
    found.build([shape, (None,)] if extra else shape)
    on_the_way_down = [f"m_down{level}" for level in range(1, levels + 1)] + ["m_body"]
    groups = [
        ([found.head], [_kernel(head)]),
        ([found.tail], [_kernel(tail)]),
        (found.down, [_of_pixels(weight) for weight in down]),
        (found.up, [_to_pixels(weight) for weight in up]),
    ]
    for blocks_of, name, count in zip(found.down_blocks, on_the_way_down, filters, strict=True):
        groups.append((blocks_of.convolutions, map(_kernel, residual(name, count))))
    for level, blocks_of in enumerate(found.up_blocks, 1):
        kernels = map(_kernel, residual(f"m_up{level}", filters[level - 1], 1))
        groups.append((blocks_of.convolutions, kernels))
    state.finish()
    for convolutions, kernels in groups:
        for one, kernel in zip(convolutions, kernels, strict=True):
            one.kernel.assign(kernel)
    return found


def _kernel(weight):
    return weight.transpose(2, 3, 1, 0)


def _of_pixels(weight):
    """A convolution of 2 x 2 pixels with stride two as one of pixels that are channels."""
    filters, channels = weight.shape[:2]
    return weight.transpose(2, 3, 1, 0).reshape(1, 1, 4 * channels, filters)


def _to_pixels(weight):
    """The same of a transposed one."""
    channels, filters = weight.shape[:2]
    return weight.transpose(0, 2, 3, 1).reshape(1, 1, channels, 4 * filters)
