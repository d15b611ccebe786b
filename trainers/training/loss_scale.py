"""The loss scale of `mixed_float16`, and the optimizer within."""

import keras


class LossScale:
    """Keras's `LossScaleOptimizer` taken apart: it does not work in cross-replica context.

    In half precision small gradients are zero; so the loss is multiplied by a power of two that is
    halved when a gradient overflows, and doubled after some steps in which none did. Without such
    an optimizer nothing is scaled, or by its constant `loss_scale_factor`.

    Args:
        optimizer: The optimizer of a compiled model.

    Attributes:
        optimizer: The one that updates the weights.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._scaler = optimizer if scaled else None
        self.optimizer = optimizer.inner_optimizer if scaled else optimizer

    @property
    def value(self):
        """What the loss is multiplied by, a tensor; `None` for nothing."""
        if self._scaler is None:
            return self.optimizer.loss_scale_factor
        return self._scaler.dynamic_scale.value

    def follow(self, finite: bool) -> bool:
        """Change the scale after a step; whether an overflow was answered by lowering it."""
        if self._scaler is None:
            return False
        count = int(self._scaler.step_counter.numpy()) + 1 if finite else 0
        scale = float(self._scaler.dynamic_scale.numpy())
        # At a scale of 1 nothing overflows that would not without it.
        lowered = not finite and scale > 1
        if lowered:
            scale /= 2
        elif count == self._scaler.dynamic_growth_steps:
            scale, count = 2 * scale, 0
        self._scaler.dynamic_scale.assign(scale)
        self._scaler.step_counter.assign(count)
        return lowered
