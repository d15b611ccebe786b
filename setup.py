"""The one list of what deq_keras needs, and of what it supports."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (HERE / "deq_keras" / "_version.py").read_text("utf-8"), re.M
).group(1)

# tensorflow-cpu, the smaller download, exists for x86-64 on Linux and Windows only.
HAS_TENSORFLOW_CPU = (
    '(sys_platform == "linux" and platform_machine == "x86_64") or '
    '(sys_platform == "win32" and platform_machine == "AMD64")'
)
HAS_NOT_TENSORFLOW_CPU = (
    '(sys_platform != "linux" or platform_machine != "x86_64") and '
    '(sys_platform != "win32" or platform_machine != "AMD64")'
)

# What converts trained models, and runs what was converted to compare it.
EXPORT = [
    "ai-edge-litert",  # runs LiteRT's files; TensorFlow has the converter
    "onnxruntime",  # runs ONNX's
    "openvino",  # converts to its own format and runs it
    "tf2onnx>=1.17",  # converts to ONNX; an older one wants old versions of NumPy and protobuf
]

setup(
    name="deq_keras",
    version=VERSION,
    description="Deep equilibrium models and bilevel learning for imaging, in Keras",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    # `trainers`, `experiments` and `benchmarks` run from a checkout: their names are too general
    # to install.
    packages=find_packages(include=["deq_keras", "deq_keras.*"]),
    # The command `deq-keras`, which finds them in a checkout. A module of its own, since what is in
    # the package imports TensorFlow.
    py_modules=["deq_keras_programs"],
    entry_points={"console_scripts": ["deq-keras = deq_keras_programs:main"]},
    package_data={
        "deq_keras": ["py.typed"],  # type checkers of other projects read the hints
        "deq_keras.presets": ["*/*.json", "*/*.h5"],  # weights and their cards
    },
    python_requires=">=3.10",
    # TensorFlow is missing here on purpose: several distributions hold the same module, and
    # whoever has one must not be given a second. deq_keras/_backend.py checks that there is one.
    install_requires=[
        "keras>=3.12",  # the last series that runs on Python 3.10; TensorFlow 2.21 asks for it
        "numpy>=1.26",  # what TensorFlow 2.20 asks for
    ],
    extras_require={
        "cpu": [
            f"tensorflow-cpu>=2.20; {HAS_TENSORFLOW_CPU}",
            f"tensorflow>=2.20; {HAS_NOT_TENSORFLOW_CPU}",
        ],
        "gpu": ["tensorflow[and-cuda]>=2.20"],  # with NVIDIA's CUDA libraries from PyPI
        # What `trainers` and `experiments` import.
        "train": [
            "absl-py",  # command lines: flags, logging
            "etils[epath]",  # paths, on a disk or in a bucket, as tensorflow-datasets gives them
            "importlib_resources",  # imported by tensorflow-datasets, which does not declare it
            "matplotlib",  # curves and images of the reports
            "ml_collections",  # configurations that reject a misspelt key
            "rich",  # tables on the terminal; Keras has it too
            "psutil",  # which network interface has an address; tensorflow-datasets has it too
            "pillow",  # reads and writes image files
            "scikit-image",  # ships the photographs that the demo learns from
            "tensorboard",  # keras.callbacks.TensorBoard needs it; TensorFlow brings it no more
            "tensorflow-datasets>=4.9.10",  # the data sets, prepared once and read as tf.data
            "tqdm",  # the progress bar of training
        ],
        "plot": ["matplotlib"],  # figures, deq_keras.plot
        # What builds the documentation; its examples run where the programs do.
        "docs": [
            "mkdocs>=1.6,<2",  # from Markdown to pages, and fails on links that lead nowhere
            "mkdocs-material>=9.5",  # their theme: search, phones, dark mode, without a network
            "mkdocstrings-python>=1.16",  # the reference, from docstrings, which it does not run
            "ruff>=0.17,<0.18",  # sets the signatures of the reference
        ],
        # What makes and checks a release.
        "release": [
            "build",  # the source distribution and the wheel, each in an environment of its own
            "cffconvert",  # checks CITATION.cff against its schema
            "py-rattler-build",  # reads conda/recipe.yaml as a build does, and refuses mistakes
            "twine",  # checks what PyPI checks, and uploads
        ],
        "export": EXPORT,  # other formats than TensorFlow's SavedModel
        # What `experiments.restore` imports, which needs no TensorFlow to talk to a server.
        "serve": [
            "absl-py",  # its command line
            "grpcio",  # calls of TensorFlow Serving and of KServe's protocol
            "protobuf>=4.22",  # their messages
            "pyvips[binary]",  # PNG and TIFF with 16-bit colour, which Pillow lacks, and metadata
            "rich",  # its summary
            "tqdm",  # its progress bar
        ],
        # What `benchmarks` measures deq_keras against, beside `train`. Each is imported in a
        # process of its own, so that neither their threads nor their memory get mixed.
        "benchmark": [
            "deepinv>=0.4",  # inverse problems in PyTorch: gradient descent as an equilibrium
            "jax",  # jaxopt and optimistix run on it
            "jaxopt",  # fixed points and minimisers with implicit derivatives, in JAX
            "lineax",  # the linear solvers of optimistix
            "optimistix",  # roots, fixed points and minimisers in JAX
            "torch",  # torchdeq and deepinv run on it, and so does the paper's procedure
            "torchdeq",  # equilibrium models in PyTorch
        ],
        "test": [
            *EXPORT,  # so that what is said of the formats stays true
            "dill",  # imported by the test case that tensorflow-datasets has for builders
            "h5py",  # reads files of weights; Keras has it too
            "packaging",  # reads the environment markers of this file
            "pydot",  # describes the drawings of keras.utils.plot_model
            "pytest>=8",
            "pytest-xdist>=3.8",  # several worker processes; files in an order of our own
            "pyyaml",  # reads the compose file and the Kubernetes manifest
            "ruff>=0.17,<0.18",  # held, since the format may change between minor versions
            "scikit-image",  # an independent implementation of PSNR and SSIM
            "scipy",  # independent linear algebra
            "setuptools>=70.1",  # builds the wheel without its own environment
            "tifffile",  # reads and writes TIFF, independently of libvips
        ],
    },
)
