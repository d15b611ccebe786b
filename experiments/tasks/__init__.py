"""Inverse problems by name, one a file.

A new one is a file, with a dictionary `DEFAULTS`, the section of that name in a configuration, and
a function `task(section)` that returns a `Task`; and its line in `TASKS`.
"""

from ml_collections import ConfigDict

from experiments.tasks import (
    deblurring,
    denoising,
    fourier,
    inpainting,
    super_resolution,
    tomography,
)
from experiments.tasks.task import Task
from trainers.process.errors import unknown_name

__all__ = ["TASKS", "Task", "add_sections", "get"]

TASKS = {
    "denoising": denoising,
    "inpainting": inpainting,
    "deblurring": deblurring,
    "super_resolution": super_resolution,
    "fourier": fourier,
    "tomography": tomography,
}


def add_sections(config):
    """Adds the sections of all tasks to a configuration, with their default values."""
    for name, module in TASKS.items():
        config[name] = ConfigDict(module.DEFAULTS)


def get(name, config):
    """The task of a name.

    Args:
        name: One of `TASKS`.
        config: The whole configuration; the task reads its own section.

    Raises:
        ConfigurationError: If the name is unknown, with the nearest known one, or a number is
            wrong.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name].task(config[name])
