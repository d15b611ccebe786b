"""Demo: both methods on the photographs that scikit-image ships, in some minutes.

python -m experiments.compare --config=experiments/configs/demo.py --workdir=runs/demo

Takes about 4 minutes on two cores. Reached (PSNR in dB; total variation, bilevel, equilibrium):
denoising 29.24, 29.53, 29.79; inpainting 29.58, 30.17, 30.37; deconvolution 30.43, 30.62, 30.66.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments import tasks


def get_config():
    config = ConfigDict()
    config.tasks = ("denoising", "inpainting", "deblurring")
    config.seed = 0

    config.data = data = ConfigDict()
    data.name = "photographs"  # those of scikit-image; see trainers.datasets.DATASETS
    data.data_dir = ""  # of the data set "folder": where the images are
    data.channels = 1
    data.max_side = 256  # larger photographs are shrunk
    data.max_pixels = placeholder(int)  # of a folder: what is larger is refused; None: 179 million
    data.patch_size = 64

    tasks.add_sections(config)  # `denoising.noise` and so on, see experiments/tasks

    config.total_variation = ConfigDict()
    config.total_variation.smoothing = 0.01

    config.prior = prior = ConfigDict()
    prior.name = "fields_of_experts"  # of deq_keras.priors; the other entries are its arguments
    prior.filters = 24
    prior.kernel_size = 5
    prior.padding = "reflect"  # how filters see the boundary; "circular", "zero" and "valid" too
    prior.activation = "tanh"
    prior.sharpness = 500.0
    prior.max_sharpness = 2000.0
    prior.filters_initializer = "dct"

    config.train = train = ConfigDict()
    train.steps = 60  # of the bilevel model
    train.further_steps = 60  # of the equilibrium model, and of the bilevel model once more
    train.batch_size = 8
    train.learning_rate = 0.03
    train.further_learning_rate = 0.01
    train.tolerance = 1e-4  # of forward solves: ||grad E(u)|| <= tolerance ||K^T y||
    train.adjoint_tolerance = 1e-3
    train.equilibrium_solver = "anderson"
    train.hypomonotonicity = placeholder(float)  # see train_demo.py

    config.evaluate = ConfigDict()
    # Fixed training patches: weights are tuned on them, and training losses compared.
    config.evaluate.training_batches = 4
    config.evaluate.pictures = 3
    return config
