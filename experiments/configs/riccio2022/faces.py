"""Fields of experts on ten photographs: the paper's second experiments.

    python -m experiments.reproduce --experiment=faces --workdir=runs/faces
    python -m experiments.reproduce --experiment=faces --subset=full --data_dir=FACES \\
        --workdir=runs/faces-full

Grey images on [-1, 1] in one batch, and
`g(u) = (c / ||C||) C^T tanh(100 (c / ||A||) A u)` with filters of 11 x 11 or 3 x 3 pixels, which
see zeros around the image. The bilevel model has C = A; the equilibrium model starts there. The
step is `u - tau (18.156 K^T (K u - y) + g(u))`. The paper's images are of CelebA, 218 x 178 pixels;
without a folder they are parts of the photographs that scikit-image ships.

- `quick`: parts of a third of the width and height, 4 to train and 4 to test, for a few epochs, in
  both modes. 24 trainings, 7 minutes on two cores; training loss of equilibrium models that start
  from bilevel ones over those trained as long: 0.979 (median).
- `full`: denoising, 4 starts of the filters with and without their norms; deconvolution, 5 x 5 from
  the models trained for denoising, 11 x 11 from those and from scratch; 10 and 10 images, 500
  epochs. With `--fidelity=ours` one epoch takes some seconds on two cores, with `paper` minutes.
"""

from ml_collections import ConfigDict


def get_config(subset="quick"):
    config = ConfigDict()
    config.experiment = "faces"
    config.subset = subset
    config.seed = 0
    config.fidelity = ("ours", "paper")

    config.data = data = ConfigDict()
    data.data_dir = ""  # of a person's own images
    data.train = data.test = 4  # images
    data.size = (73, 59)

    config.grid = grid = ConfigDict()
    grid.tasks = ("denoising", "deblurring")
    grid.base = ConfigDict({"noise": 0.1, "blur": 0, "filters": "first_order", "norms": True})
    grid.of_task = ConfigDict({"denoising": {}, "deblurring": {"blur": 5}})
    grid.vary, grid.varied = "each", ("denoising",)
    grid.variations = ConfigDict({"filters": ("first_order", "random_3"), "norms": (True, False)})
    grid.cases = ()
    grid.further = ("ours",)
    # What a model of a task starts from: its own first filters, or the trained models of denoising.
    grid.starts = ConfigDict({"denoising": ("random",), "deblurring": ("denoising",)})

    config.train = train = ConfigDict()
    train.epochs = 6
    train.further_epochs = 6
    train.schedule_epochs = 6  # in which the rate falls linearly
    train.batch_size = 4  # all of them
    train.learning_rate = ConfigDict({"denoising": 1e-3, "deblurring": 1e-3})
    train.final_share = ConfigDict({"denoising": 0.01, "deblurring": 0.1})
    train.further_rate = 1e-3

    config.ours = ours = ConfigDict()
    ours.tolerance = 1e-5
    ours.adjoint_tolerance = 1e-4
    ours.max_steps = 1000

    config.published = published = ConfigDict()
    published.tolerance = 1e-14  # in single precision this is never reached
    published.max_steps = 1000  # four times as many for deconvolution

    if subset == "full":
        data.train = data.test = 10
        data.size = (218, 178)
        grid.vary = "listed"
        grid.cases = tuple(
            {"task": task, "noise": noise, "blur": blur, "filters": filters, "norms": norms}
            for task, noise, blur in (
                ("denoising", 0.1, 0),
                ("deblurring", 0.1, 5),
                ("deblurring", 0.01, 11),
            )
            for filters in ("first_order", "second_order", "random_11", "random_3")
            for norms in (True, False)
        )
        grid.starts = ConfigDict({"denoising": ("random",), "deblurring": ("denoising", "random")})
        train.epochs = train.further_epochs = train.schedule_epochs = 500
        train.batch_size = 10
        # The paper has another rate for each start, from 7e-4 to 1e-2; these are in the middle.
        train.learning_rate = ConfigDict({"denoising": 8e-3, "deblurring": 5e-3})
    return config
