"""Makes a model repository for NVIDIA Triton of an exported model.

    python docker/serving/triton/make_repository.py models/denoiser --output=models/triton

The export is a folder that `python -m experiments.export` wrote, `models/denoiser`, of which the
latest version is taken, or one version of it, `models/denoiser/3`. Its signatures become models:
`denoiser` is `diagnose`, `denoiser_encoded`, `denoiser_uint8`, `denoiser_gradient` are those of
these names, and `denoiser_default` is `serving_default`. Each is a process of the server with a
TensorFlow of its own; `--signatures=diagnose,encoded` names those that are wanted.

Needs nothing but Python, and does not run the model.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# What a SavedModel consists of. Anything else in the folder, code above all, stays out.
PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}
SUFFIXES = {"diagnose": "", "serving_default": "_default"}
# Signature inputs that a request may leave out: model.py gives the model's own.
OPTIONAL = {"tolerance", "max_steps"}
TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "complex64": "TYPE_FP32",  # with a last axis of two
    "string": "TYPE_STRING",
}


class ForeignFolder(ValueError):
    """A folder that is not what `experiments.export` writes; the message says why."""


def find_version(folder):
    """The version folder: that of the highest number in an export, or the one that is named."""
    if not folder.is_dir():
        raise ForeignFolder(f"Expected an exported model, received {folder}, which is no folder.")
    if folder.name.isdecimal():
        return folder
    versions = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    if not versions:
        raise ForeignFolder(
            f"Expected an exported model with versions such as {folder / '1'}, received a folder "
            "without any. Write one with `python -m experiments.export`."
        )
    return max(versions, key=lambda path: int(path.name))


def read_signatures(version):
    """The signatures of the model card, once the folder has been looked at.

    Args:
        version: The version folder, which holds `saved_model.pb`.

    Returns:
        `{signature: {"inputs": {name: {"dtype", "shape"}}, "outputs": …}}`.

    Raises:
        ForeignFolder: if there is something in it that no SavedModel has, or no card.
    """
    links = [path.name for path in version.rglob("*") if path.is_symlink()]
    foreign = sorted({path.name for path in version.iterdir()} - PARTS)
    if links or foreign:
        raise ForeignFolder(
            f"Expected a SavedModel, {sorted(PARTS)}, in {version}; "
            f"received {', '.join(links + foreign)} as well. Name the folder of an export."
        )
    card = version / "assets.extra" / "model_card.json"
    for path in (version / "saved_model.pb", card):
        if not path.is_file():
            raise ForeignFolder(
                f"Expected an exported model, and {version} has no "
                f"{path.relative_to(version)}. Export it with `python -m experiments.export`."
            )
    try:
        signatures = json.loads(card.read_text("utf-8"))["signatures"]
        for signature, tensors in signatures.items():
            for name, spec in (*tensors["inputs"].items(), *tensors["outputs"].items()):
                if not (NAMES.fullmatch(name) and NAMES.fullmatch(signature)):
                    raise ForeignFolder(f"Expected names such as 'measurement', received {name!r}.")
                _tensor(name, spec)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ForeignFolder(
            f"Expected the card that an export writes, with its signatures, in {card}; "
            f"received one that is damaged or of something else ({type(error).__name__}: {error})."
        ) from error
    return signatures


def _tensor(name, spec, optional=False):
    """A tensor in the configuration of a model; the batch is an axis like others."""
    dims = [-1 if size is None else int(size) for size in spec["shape"]]
    if spec["dtype"] == "complex64":
        dims.append(2)
    lines = [f'name: "{name}"', f"data_type: {TYPES[spec['dtype']]}", f"dims: {dims}"]
    return "  {\n" + "".join(f"    {x}\n" for x in lines + ["optional: true"] * optional) + "  }"


def configuration(name, signature, tensors, instances=1):
    """The text of `config.pbtxt`.

    Args:
        name: The model, as requests call it.
        signature: The signature of the SavedModel.
        tensors: Its `"inputs"` and `"outputs"`, as in the model card.
        instances: How many processes compute requests at the same time.
    """
    inputs = [
        _tensor(key, spec, optional=signature == "diagnose" and key in OPTIONAL)
        for key, spec in tensors["inputs"].items()
    ]
    outputs = [_tensor(key, spec) for key, spec in tensors["outputs"].items()]
    # max_batch_size 0: images of two requests differ in size, so Triton has nothing to put
    # together, and the axis of the batch is one like the others.
    return "\n".join(
        [
            f'name: "{name}"',
            'backend: "python"',
            "max_batch_size: 0",
            "input [\n" + ",\n".join(inputs) + "\n]",
            "output [\n" + ",\n".join(outputs) + "\n]",
            f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]",
            f'parameters {{ key: "signature" value {{ string_value: "{signature}" }} }}',
            "",
        ]
    )


def make(export, output, name=None, only=None, instances=1):
    """Writes the models of an export into a repository; returns their names.

    A version that is there already is not replaced.

    Args:
        export: The folder of an export, or of one version of it.
        output: The model repository, which need not exist.
        name: The name of the models; by default that of the export's folder.
        only: Signatures that become models; by default all.
        instances: Processes for each model.

    Raises:
        ForeignFolder: if `export` is none.
        ValueError: if a signature or a name cannot be had.
        FileExistsError: if the version is there already.
    """
    version = find_version(Path(export).resolve())
    signatures = read_signatures(version)
    name = name or version.parent.name
    if not NAMES.fullmatch(name):
        raise ValueError(f"Expected a name such as 'denoiser', received {name!r}: use --name.")
    missing = set(only or ()) - set(signatures)
    if missing:
        raise ValueError(
            f"Expected signatures among {sorted(signatures)}, received {sorted(missing)}."
        )
    models = {name + SUFFIXES.get(key, f"_{key}"): key for key in only or signatures}
    output = Path(output)
    for model in models:
        if (output / model / version.name).exists():
            raise FileExistsError(
                f"{output / model} has version {version.name} already. Remove it, or export anew."
            )
    output.mkdir(parents=True, exist_ok=True)
    for model, key in models.items():
        with tempfile.TemporaryDirectory(prefix=".making-", dir=output) as temporary:
            new = Path(temporary) / version.name
            shutil.copytree(version, new / "saved_model")
            shutil.copyfile(HERE / "model.py", new / "model.py")
            text = configuration(model, key, signatures[key], instances)
            (Path(temporary) / "config.pbtxt").write_text(text, "utf-8")
            (output / model).mkdir(exist_ok=True)
            new.rename(output / model / version.name)
            (Path(temporary) / "config.pbtxt").replace(output / model / "config.pbtxt")
    return list(models)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="models/NAME, or a version of it")
    parser.add_argument("--output", type=Path, required=True, help="the model repository")
    parser.add_argument("--name", help="of the models; by default the folder's")
    parser.add_argument("--signatures", help="with commas between; by default all")
    parser.add_argument("--instances", type=int, default=1, help="processes for each model")
    given = parser.parse_args(arguments)
    if given.instances < 1:
        parser.error(f"Expected --instances=1 or more, received {given.instances}.")
    only = given.signatures.split(",") if given.signatures else None
    try:
        models = make(given.export, given.output, given.name, only, given.instances)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"{given.output / model}" for model in models))
    return 0


if __name__ == "__main__":
    sys.exit(main())
