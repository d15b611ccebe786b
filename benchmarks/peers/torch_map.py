"""The map in PyTorch, for all contestants that are built on it."""

import importlib
import os

import numpy as np


def need(module):
    """Import a peer, or say how to get it.

    Raises:
        ImportError: If it is missing, with the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module!r} cannot be imported ({error}). The peers are in the extra `benchmark`: "
            'python -m pip install -e ".[cpu,train,benchmark]"'
        ) from error


class TorchMap:
    """`f(u, y)` and the parts of its gradient; images are `(batch, 1, height, width)`.

    Args:
        problem: A `Problem`.
        layout: `"default"` or `"channels_last"`, PyTorch's memory formats.
    """

    def __init__(self, problem, layout="channels_last"):
        self.torch = torch = need("torch")
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
        self.problem = problem
        formats = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
        self.format = formats[layout]
        self.filters = self.tensor(problem.filters.transpose(3, 2, 0, 1)).requires_grad_()
        self.y = self.tensor(problem.measurement.transpose(0, 3, 1, 2)).requires_grad_()
        self.x = self.tensor(problem.target.transpose(0, 3, 1, 2))
        self.padding = tuple(side // 2 for side in problem.filters.shape[:2])
        self.transfer = None
        if problem.blur is not None:
            from benchmarks.problems import transfer

            spectrum = transfer(problem.blur, *problem.measurement.shape[1:3])
            self.transfer = torch.as_tensor(spectrum.astype(np.complex64))

    def tensor(self, array):
        """An array as a tensor in the layout of this map."""
        tensor = self.torch.tensor(np.ascontiguousarray(array))
        return tensor.contiguous(memory_format=self.format)

    def blur(self, u, adjoint=False):
        """`K u` or `K^T u`."""
        if self.transfer is None:
            return u
        spectrum = self.transfer.conj() if adjoint else self.transfer
        filtered = self.torch.fft.rfft2(u) * spectrum
        return self.torch.fft.irfft2(filtered, s=u.shape[-2:])

    def prior_gradient(self, u):
        """`A^T tanh(chi A u)`."""
        functional = self.torch.nn.functional
        response = functional.conv2d(u, self.filters, padding=self.padding)
        response = self.torch.tanh(self.problem.sharpness * response)
        return functional.conv_transpose2d(response, self.filters, padding=self.padding)

    def gradient(self, u, y):
        """`a K^T (K u - y) + A^T tanh(chi A u)`."""
        data = self.problem.data_weight * self.blur(self.blur(u) - y, adjoint=True)
        return data + self.prior_gradient(u)

    def __call__(self, u, y):
        return u - self.problem.step * self.gradient(u, y)

    def backward(self, u):
        """The derivatives of the loss at `u`, with respect to the filters and the measurement."""
        loss = 0.5 * ((u - self.x) ** 2).sum()
        return self.torch.autograd.grad(loss, (self.filters, self.y))

    def finish(self, gradients, **counts):
        """Arrays in the layout of the `Problem`."""
        filters, measurement = (g.detach().contiguous().numpy() for g in gradients)
        return {
            "filters": filters.transpose(2, 3, 1, 0),
            "measurement": measurement.transpose(0, 2, 3, 1),
            **counts,
        }
