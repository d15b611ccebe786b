"""The problems that all contestants solve, as plain arrays.

Every problem is the fixed point in `u` of one gradient step,

    f(u, y) = u - tau (a K^T (K u - y) + A^T tanh(chi A u)),

with zero ("same") padding of the filters `A` and an optional circular blur `K`, followed by the
loss `||u* - x||^2 / 2`. A training step finds `u*` and the derivatives of the loss with respect to
`A` and `y`.
"""

import dataclasses
from pathlib import Path

import numpy as np

PEERS_NORM = 3.8  # ||A||, so the gradient has Lipschitz constant 1 + 3.8^2 < 16 and f contracts


@dataclasses.dataclass(frozen=True)
class Problem:
    """One problem; arrays are float32.

    Attributes:
        filters: `A`, `(height, width, 1, count)`, as `tf.nn.conv2d` takes them.
        measurement: `y`, `(batch, height, width, 1)`.
        target: `x`, of the same shape.
        step: `tau`.
        data_weight: `a`.
        sharpness: `chi`.
        blur: Kernel of `K`, `(side, side)` with odd sides, or `None` for the identity.
    """

    filters: np.ndarray
    measurement: np.ndarray
    target: np.ndarray
    step: float
    data_weight: float = 1.0
    sharpness: float = 1.0
    blur: np.ndarray | None = None


def filters_norm(filters, sizes=(256, 256)):
    """An upper bound on `||A||` for zero padding and every image size: the largest gain of any
    frequency, on a grid fine enough that what is between its points adds less than 0.1 %."""
    spectrum = np.fft.fft2(filters[:, :, 0, :].astype(np.float64), sizes, axes=(0, 1))
    return 1.001 * np.sqrt((np.abs(spectrum) ** 2).sum(-1).max())


def peers(batch=8, size=96, count=32, side=5, seed=0, sharpness=1.0):
    """The map `u - tau ((u - y) + A^T tanh(chi A u))` with random filters and a smooth image.

    As `||A||^2 <= 14.5`, the step 0.1 makes `f` a contraction with factor 0.9 for `chi = 1`.
    For a sharper one it is as much shorter as the curvature is larger.
    """
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(side, side, 1, count))
    filters -= filters.mean(axis=(0, 1), keepdims=True)  # an image of one grey value costs nothing
    filters *= PEERS_NORM / filters_norm(filters)
    target = _smooth(rng, batch, size, size)
    measurement = target + 0.1 * rng.normal(size=target.shape)
    step = 0.1 * (1.0 + PEERS_NORM**2) / (1.0 + sharpness * PEERS_NORM**2)
    arrays = _float32(filters, measurement, target)
    return Problem(*arrays, step=step, sharpness=sharpness)


def paper(task="denoising", images=10, data_dir=None, height=218, width=178, seed=0):
    """The energy of arXiv:2206.13193 on photographs on [-1, 1] at its start.

    `18.156 ||K u - y||^2 / 2 + sum log cosh(100 A u) / 100`, where `A` holds two filters of 11 x 11
    pixels that are forward differences; `K` is the identity or a circular blur along the diagonal.

    Args:
        task: `"denoising"` or `"deblurring"`.
        images: Batch size.
        data_dir: Folder of PNG or JPEG images; `None` for photographs of scikit-image.
        height, width: Size of the centre crops.
        seed: Of the noise.
    """
    if task not in ("denoising", "deblurring"):
        raise ValueError(f"Expected `task` to be 'denoising' or 'deblurring'. Received {task!r}.")
    rng = np.random.default_rng(seed)
    filters = np.zeros((11, 11, 1, 2))
    filters[5, 5] = -1.0
    filters[5, 6, 0, 0] = filters[6, 5, 0, 1] = 1.0
    target = 2.0 * photographs(images, data_dir, height, width) - 1.0
    blur = np.eye(5) / 5.0 if task == "deblurring" else None
    clean = target if blur is None else apply_blur(target, blur)
    noise = 0.2 if blur is None else 0.05
    measurement = clean + noise * rng.normal(size=target.shape)
    arrays = _float32(filters, measurement, target)
    # The published procedure takes 1 / (8 chi), which neglects the data term: 8 >= ||A||^2.
    return Problem(*arrays, step=1.0 / 800.0, data_weight=18.156, sharpness=100.0, blur=blur)


def photographs(count, data_dir, height, width):
    """Grey crops `(count, height, width, 1)` on [0, 1], float64."""
    if data_dir is not None:
        pictures = _from_folder(Path(data_dir), count)
    else:
        from skimage import data

        names = ("astronaut", "camera", "coffee", "chelsea", "rocket", "coins", "page", "brick")
        pictures = [getattr(data, name)() for name in names]
    crops = []
    for picture in pictures:
        grey = picture.astype(np.float64) / 255.0
        grey = grey[..., :3].mean(-1) if grey.ndim == 3 else grey
        rows, columns = grey.shape[0] // height, grey.shape[1] // width
        crops.append(
            [
                grey[i * height : (i + 1) * height, j * width : (j + 1) * width]
                for i in range(rows)
                for j in range(columns)
            ]
        )
    # One crop of each picture in turn, so that few images are of many pictures.
    rounds = range(max((len(c) for c in crops), default=0))
    order = [c[k] for k in rounds for c in crops if k < len(c)]
    if len(order) < count:
        raise ValueError(
            f"Expected at least {count} crops of {height} x {width} pixels. Found {len(order)}: "
            "use fewer images or a folder with more."
        )
    return np.stack(order[:count])[..., None]


def _from_folder(folder, count):
    from PIL import Image

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise ValueError(f"Expected PNG or JPEG images in {folder}. Found none.")
    return [np.asarray(Image.open(path).convert("L")) for path in paths[:count]]


def _smooth(rng, batch, height, width):
    """Random images on [0, 1] whose spectrum falls like that of photographs."""
    noise = np.fft.rfft2(rng.normal(size=(batch, height, width)))
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    images = np.fft.irfft2(noise / (radius + 1.0 / height), (height, width))
    low, high = (reduce(images, axis=(1, 2), keepdims=True) for reduce in (np.min, np.max))
    return ((images - low) / (high - low))[..., None]


def transfer(blur, height, width):
    """Transfer function `(height, width // 2 + 1)` of a centred circular blur."""
    kernel = np.zeros((height, width))
    for (i, j), value in np.ndenumerate(blur):
        kernel[(i - blur.shape[0] // 2) % height, (j - blur.shape[1] // 2) % width] += value
    return np.fft.rfft2(kernel)


def apply_blur(u, blur, adjoint=False):
    """`K u`, or `K^T u`, in the precision of `u`."""
    spectrum = transfer(blur, *u.shape[1:3])[None, :, :, None]
    spectrum = spectrum.conj() if adjoint else spectrum
    filtered = np.fft.rfft2(u, axes=(1, 2)) * spectrum
    return np.fft.irfft2(filtered, u.shape[1:3], axes=(1, 2))


def _float32(*arrays):
    return [np.ascontiguousarray(array, np.float32) for array in arrays]
