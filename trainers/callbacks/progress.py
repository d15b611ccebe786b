"""One progress bar over a whole training, for programs that train several models."""

import keras
from tqdm import tqdm


class Progress(keras.callbacks.Callback):
    """One progress bar, with the time left, over all steps of a training and not over an epoch.

    Args:
        steps: Number of steps of the whole training.
        description: Label of the bar.
    """

    chief_only = True

    def __init__(self, steps: int, description: str):
        super().__init__()
        self.steps, self.description = steps, description

    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self, "bar"):
            self.bar = tqdm(
                total=self.steps,
                initial=int(self.model.optimizer.iterations.numpy()),
                desc=self.description,
                unit="step",
                dynamic_ncols=True,
            )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix_str(f"loss {logs['loss']:.3e}", refresh=False)
        self.bar.update()

    def close(self):
        """End the bar, whatever has happened."""
        if hasattr(self, "bar"):
            self.bar.close()
