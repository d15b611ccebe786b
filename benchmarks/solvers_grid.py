"""The grid of problems of the suite `solvers`, as plain data.

Tasks: denoising, deconvolution, inpainting and super-resolution of photographs. On each of them
fields of experts of a number of sharpnesses (their energies, and untied maps near their gradients)
and total variation; on some, networks that are no gradients of anything.
"""

import dataclasses

# Of each task, the standard deviation of the noise, and the weight of the prior.
TASKS = {
    "denoising": (0.1, 0.1),
    "deconvolution": (0.01, 0.01),
    "inpainting": (0.05, 0.05),
    "super-resolution": (0.01, 0.01),
}
EXPERTS = ("tied experts", "untied experts")
NETWORKS = {  # and the tasks that they are measured on
    "gradient network": ("denoising", "deconvolution"),
    "proximal network": ("deconvolution", "super-resolution"),
}
KINDS = {
    "tied experts": "energies",
    "total variation": "energies",
    "untied experts": "maps",
    **dict.fromkeys(NETWORKS, "maps"),
}


@dataclasses.dataclass(frozen=True)
class Family:
    """Problems that differ in their sharpness alone; plain data.

    Attributes:
        task: Of `TASKS`.
        prior: Of `KINDS`.
        batch: Number of images.
        size: Their side in pixels.
        filters: Number of experts.
        seed: Of filters, noise and masks.
    """

    task: str
    prior: str
    batch: int
    size: int
    filters: int
    seed: int

    @property
    def name(self):
        """The name, for people."""
        return f"{self.task}, {self.prior}"

    @property
    def kind(self):
        """`"energies"` or `"maps"`: steps on an energy, or of a map that is no gradient."""
        return KINDS[self.prior]

    def levels(self, sharpness):
        """The sharpnesses to measure: those that are asked for, or `None` where there is none."""
        return tuple(sharpness) if self.prior in EXPERTS else (None,)


def families(batch, size, filters, seed, only=""):
    """All families of the grid whose name contains `only`.

    Raises:
        ValueError: If there is none.
    """
    pairs = [(task, prior) for prior in (*EXPERTS, "total variation") for task in TASKS]
    pairs += [(task, prior) for prior, tasks in NETWORKS.items() for task in tasks]
    found = [Family(task, prior, batch, size, filters, seed) for task, prior in pairs]
    chosen = [family for family in found if only in family.name]
    if not chosen:
        names = [family.name for family in found]
        raise ValueError(f"Expected --only to be part of one of {names}. Received {only!r}.")
    return chosen
