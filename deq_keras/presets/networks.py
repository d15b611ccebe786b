"""Published networks from the weights of their authors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from deq_keras.denoisers import DRUNet
from deq_keras.presets.state import State
from deq_keras.priors import TotalDeepVariation


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


def tdv(tensors: Mapping, dtype: str | None = None) -> TotalDeepVariation:
    """The prior total deep variation, TDV, for grey images.

    Its energy is the sum over the pixels of the published one.

    Args:
        tensors: `K1.weight`, `mb.{block}.mb.{scale}.{way}.conv{1,2}.weight`,
            `mb.{block}.conv_down.{scale}.weight`, `mb.{block}.conv_up.{scale}.weight` and
            `KN.weight`; `….mask` and `….blur` are the same in all models, and not used.
        dtype: Of the prior.

    Raises:
        ValueError: If a tensor is missing, has another shape, or is not among these; or if the
            first filters have means.

    Reference:
        Kobler, Effland, Kunisch and Pock, Total deep variation: a stable regularization method for
        inverse problems, IEEE TPAMI 2021.

    Example:

    >>> shapes = {"K1.weight": (4, 1, 3, 3), "KN.weight": (1, 4, 1, 1)}
    >>> places = [f"mb.0.{name}" for name in ("conv_down.0", "conv_up.0")]
    >>> places += [f"mb.0.mb.{way}.conv{i}" for way in ("0.0", "0.1", "1.0") for i in (1, 2)]
    >>> shapes |= {f"{place}.weight": (4, 4, 3, 3) for place in places}
    >>> tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    >>> deq_keras.presets.pytorch.tdv(tensors).scales
    2
    """
    state = State("TDV", tensors, (".mask", ".blur"))
    blocks = len(state.numbered("mb.{}.mb.0.0.conv1.weight"))
    scales = len(state.numbered("mb.0.mb.{}.0.conv1.weight"))
    if not blocks:
        raise state.error("mb.0.mb.0.0.conv1.weight and so on", "no block")
    first = state.take("K1.weight", (None, 1, 3, 3))
    if np.abs(first.mean(axis=(2, 3))).max() > 1e-5 * np.abs(first).max():
        raise state.error("filters without means in 'K1.weight'", "others")
    count = len(first)

    def take(name):
        return _kernel(state.take(f"{name}.weight", (count, count, 3, 3)))

    def residual(block):
        ways = [f"{scale}.0" for scale in range(scales)]
        ways += [f"{scale}.1" for scale in reversed(range(scales - 1))]
        return [[take(f"mb.{block}.mb.{way}.conv{i}") for i in (1, 2)] for way in ways]

    found = TotalDeepVariation(count, blocks, scales, log_factor=1.0, blur=True, dtype=dtype)
    found.build((None, None, None, 1))
    found.residual.assign([residual(block) for block in range(blocks)])
    for weight, way in ((found.down, "down"), (found.up, "up")):
        if scales > 1:
            names = [[f"mb.{b}.conv_{way}.{s}" for s in range(scales - 1)] for b in range(blocks)]
            weight.assign([list(map(take, row)) for row in names])
    last = state.take("KN.weight", (1, count, 1, 1))[0, :, 0, 0]
    state.finish()
    found.first.assign(_kernel(first))
    found.last.assign(last / count)
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
