"""Affine experts on digits: the paper's first experiments.

    python -m experiments.reproduce --experiment=mnist --data_file=mnist.npz --workdir=runs/mnist
    python -m experiments.reproduce --experiment=mnist --subset=reference --fidelity=paper \\
        --data_file=mnist.npz --workdir=runs/reference
    python -m experiments.reproduce --experiment=mnist --subset=full --dataset=mnist \\
        --workdir=runs/full

Images of 28 x 28 pixels on [-1, 1], a batch of 100, Adam from 1e-3 along a cosine to 1e-6 over 100
epochs, the mean squared error. The map is `u - tau (K^T (K u - y) + gamma g(u))`, with
`g(u) = A^T sigma(A u + b)` or `B sigma(A u + b)`.

- `quick`: one setting for each task, that of denoising with variations one by one, on 2,000 digits
  for 3 epochs of the schedule, in both modes. 48 trainings, 21 minutes on two cores that did other
  work as well. Test loss of denoising (ReLU, our solvers): bilevel 0.190, trained further 0.181;
  equilibrium from it 0.173, from random weights 0.250. The measurement: 0.250.
- `reference`: the settings for which the losses of the authors' code are known, on 9,000 digits for
  2 epochs of the schedule. 10 trainings with the published solvers, 25 minutes likewise. Test loss
  of denoising (ReLU): bilevel 0.148, equilibrium 0.246; theirs 0.148 and 0.247.
- `full`: the grid of the paper, 5 noise levels x 5 steps x 3 weights x 3 activations for each of 3
  tasks and 2 models, 100 epochs each. Most of a year on two cores: choose a part of it by
  `--config.grid.tasks` and `--config.grid.variations.noise`, say.
"""

from ml_collections import ConfigDict

from experiments.reproduction import original


def get_config(subset="quick"):
    config = ConfigDict()
    config.experiment = "mnist"
    config.subset = subset
    config.seed = 0
    config.fidelity = ("ours", "paper")

    config.data = data = ConfigDict()
    data.dataset = ""  # "mnist": by TensorFlow Datasets
    data.file = ""  # an .npz file with arrays `image` and `label`
    data.train, data.test = 2000, 500  # images: the first of the file, and those after 9,000

    # A setting is `base`, with the entries of its task in place of it. `vary` says what else there
    # is: "each", the variations one by one, of the tasks in `varied`; "product", all combinations
    # of them; "listed", what `cases` says.
    config.grid = grid = ConfigDict()
    grid.tasks = ("denoising", "inpainting", "deblurring")
    grid.base = ConfigDict({"noise": 0.1, "tau": 0.1, "gamma": 0.5, "activation": "relu"})
    grid.of_task = ConfigDict({"denoising": {"noise": 0.5}, "inpainting": {}, "deblurring": {}})
    grid.vary, grid.varied = "each", ("denoising",)
    grid.variations = ConfigDict(
        {
            "noise": (0.1, 0.5),
            "tau": (0.1, 0.9),
            "gamma": (0.1, 0.5),
            "activation": ("relu", "soft_shrinkage", "identity"),
        }
    )
    grid.cases = ()
    # The modes in which equilibrium models that start from the trained bilevel ones are trained as
    # well, and these bilevel models as long.
    grid.further = ("ours",)

    config.train = train = ConfigDict()
    train.epochs = 3
    train.further_epochs = 3
    train.schedule_epochs = 100  # in which the rate falls along a cosine
    train.batch_size = 100
    train.learning_rate = 1e-3
    train.final_rate = 1e-6
    train.further_rate = 3e-4  # of the models that start from a trained one; it falls likewise

    config.ours = ours = ConfigDict()
    ours.tolerance = 1e-4  # ||grad E(u)|| <= tolerance ||K^T y||, for each image
    ours.adjoint_tolerance = 1e-4
    ours.max_steps = 200

    config.published = published = ConfigDict()
    published.memory = 5
    published.ridge = 1e-4
    published.tolerance = 1e-3  # ||f(U) - U|| / ||f(U)|| of the whole batch
    published.max_steps = 50

    if subset == "reference":
        data.train, data.test = 9000, 1000
        grid.vary, grid.cases = "listed", tuple(original.CASES)
        grid.further = ()
        train.epochs = 2
    elif subset == "full":
        data.train, data.test = 60000, 10000
        grid.vary = "product"
        grid.variations = ConfigDict(
            {
                "noise": (0.0, 0.05, 0.1, 0.5, 1.0),
                "tau": (0.01, 0.1, 0.9, 1.1, 2.1),
                "gamma": (0.1, 0.5, 1.0),
                "activation": ("relu", "soft_shrinkage", "identity"),
            }
        )
        train.epochs = train.further_epochs = 100
    return config
