"""Experiments of a paper, from one command each: a grid of trainings, and a page of what came out.

    python -m experiments.reproduce --experiment=mnist --data_file=mnist.npz --workdir=runs/mnist
    python -m experiments.reproduce --experiment=faces --workdir=runs/faces
    python -m experiments.reproduce --experiment=faces --subset=full --fidelity=ours \\
        --data_dir=FOLDER --workdir=runs/faces-full

The paper is Riccio, Ehrhardt and Benning, arXiv:2206.13193; its experiments are described, with
their subsets, in `experiments/configs/riccio2022`. `--config.ENTRY=VALUE` changes an entry. Each
run is trained with the solvers of the paper (`--fidelity=paper`), with ours, or, as it is without
this flag, with both. Runs are divided among parallel processes. What is finished is kept: after any
stop the same command goes on where it was. Writes `results.json` and `report.html` into the working
directory, and a folder for each run into `runs` there.
"""

import argparse
import time

from experiments import command_line, config_flag

# isort: split
# They choose Keras's backend, so they come first.
import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import configuration, program
from experiments.provenance import provenance
from experiments.reproduction import claims, grid, models, pool, training
from experiments.reproduction.page import write_page
from experiments.workspace import Workspace
from trainers.process import cores
from trainers.process.errors import ConfigurationError, unknown_name
from trainers.process.files import write_json
from trainers.process.signals import interruptible

PAPERS = ("riccio2022",)
SUBSETS = ("quick", "reference", "full")
_DEFAULTS = {"paper": "riccio2022", "experiment": "mnist", "subset": "quick"}

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(config_flag)
_PAPER = flags.DEFINE_enum("paper", _DEFAULTS["paper"], PAPERS, "Whose experiments.")
_EXPERIMENT = flags.DEFINE_enum(
    "experiment", _DEFAULTS["experiment"], list(models.EXPERIMENTS), "Which of them."
)
_SUBSET = flags.DEFINE_enum("subset", _DEFAULTS["subset"], SUBSETS, "How much of its grid.")
_FIDELITY = flags.DEFINE_enum(
    "fidelity", None, models.FIDELITIES, "With whose solvers; with both if not given."
)
_DATASET = flags.DEFINE_string("dataset", None, "Data set to download: mnist.")
_DATA_FILE = flags.DEFINE_string("data_file", None, "File .npz with `image` and `label`.")
_JOBS = flags.DEFINE_integer(
    "jobs", None, "Processes at a time; one for each core if not given.", lower_bound=1
)


def parse(argv):
    """The flags. Which configuration `--config` changes depends on some of them."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, default in _DEFAULTS.items():
        chooser.add_argument(f"--{name}", f"-{name}", default=default)
    chosen, _ = chooser.parse_known_args(argv[1:])
    # Of unknown names absl says which there are, when it reads all flags.
    if chosen.paper not in PAPERS or chosen.experiment not in models.EXPERIMENTS:
        return program.parse(argv)
    known = models.get(chosen.experiment).SUBSETS
    if chosen.subset not in known and chosen.subset in SUBSETS:
        program.wrong(
            f"The experiment {chosen.experiment!r} has no subset {chosen.subset!r}: take one of "
            f"{', '.join(known)}."
        )
    subset = chosen.subset if chosen.subset in known else known[0]
    return config_flag.parse(argv, f"{chosen.paper}/{chosen.experiment}.py:{subset}")


def effective_config():
    """The configuration, with what the flags say in place of its entries; locked."""
    command_line.check_folders()
    config = config_flag.CONFIG.value
    if config.get("experiment") != _EXPERIMENT.value:
        raise ConfigurationError(
            f"Expected --config to be a configuration of the experiment {_EXPERIMENT.value!r}, as "
            f"in experiments/configs/{_PAPER.value}. Received another one."
        )
    given = {
        "dataset": _DATASET.value,
        "file": _DATA_FILE.value,
        "data_dir": command_line.DATA_DIR.value,
    }
    with config.unlocked():
        if _FIDELITY.value is not None:
            config.fidelity = (_FIDELITY.value,)
        for entry, value in given.items():
            if value is None:
                continue
            if entry not in config.data:
                raise ConfigurationError(
                    f"The experiment {config.experiment!r} takes its images from the entries "
                    f"{sorted(config.data.keys())} of config.data. Received {entry}={value!r}."
                )
            config.data[entry] = value
    configuration.check_seed(config)
    configuration.check_counts(
        config,
        data__train=1,
        data__test=1,
        train__epochs=1,
        train__further_epochs=1,
        train__schedule_epochs=1,
        train__batch_size=1,
        ours__max_steps=2,
        published__max_steps=2,
    )
    entries = ("ours.tolerance", "ours.adjoint_tolerance", "published.tolerance")
    configuration.check_positive(config, *entries, "train.further_rate")
    known = models.get(config.experiment).TASKS
    for task in config.grid.tasks:
        if task not in known:
            raise unknown_name(f"task of the experiment {config.experiment!r}", task, known)
    for fidelity in (*config.fidelity, *config.grid.further):
        if fidelity not in models.FIDELITIES:
            raise unknown_name("fidelity", fidelity, models.FIDELITIES)
    return config


def prepare():
    """Configuration, images, runs and workspace: what is wrong is found out before any work."""
    config = effective_config()
    images = models.get(config.experiment).load(config)
    runs = grid.runs(config)
    if not runs:
        raise ConfigurationError(
            "Expected at least one run. The grid of the configuration is empty."
        )
    shape = images.train.shape[1:]
    seen = set()
    for run in runs:  # of each kind one model, which says what is wrong with its settings
        kind = tuple(value for value in run.settings.values() if not isinstance(value, float))
        if kind not in seen:
            seen.add(kind)
            models.build(run.settings, config, shape)
    # A run is the same in whatever grid it is: what was trained for another one is taken.
    workspace = Workspace(command_line.WORKDIR.value, config.to_dict(), ("fidelity", "grid"))
    workspace.write_config()
    return config, images, runs, workspace


def pictures(records, workspace):
    """What can be shown of each run: images, and the experts."""
    found = {}
    for record in records:
        path = workspace.path / "runs" / record["id"] / "pictures.npz"
        if record["failed"] or not path.exists():
            continue
        with np.load(path) as content:
            parts = dict(content)
        prefix = "filters_"
        shown = {key: value for key, value in parts.items() if not key.startswith(prefix)}
        experts = {k.removeprefix(prefix): v for k, v in parts.items() if k.startswith(prefix)}
        found[record["id"]] = {**shown, "filters": experts}
    return found


class Progress:
    """A progress bar over the steps of all trainings, as far as their folders say.

    Args:
        runs, config, images, workspace: As `prepare` gives them.
    """

    def __init__(self, runs, config, images, workspace):
        self.folder = workspace.path / "runs"
        of_epoch = training.steps_per_epoch(config, images)
        self.steps = {run.name: training.epochs(run, config) * of_epoch for run in runs}

    def __enter__(self):
        self.bar = tqdm(total=sum(self.steps.values()), unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *error):
        self.bar.close()

    def show(self, records):
        """Shows where the trainings are: `records` are those of the finished ones."""
        done = sum(self.steps[name] for name in records)
        for name in self.steps.keys() - records.keys():
            log = self.folder / name / "training" / "metrics.jsonl"
            if log.exists():
                with log.open(encoding="utf-8") as lines:
                    done += sum(line.startswith('{"step"') for line in lines)
        self.bar.set_description_str(f"{len(records)} of {len(self.steps)} runs")
        self.bar.update(done - self.bar.n)


def reproduce():
    """Everything, from the flags to the page."""
    begin = time.perf_counter()
    config, images, runs, workspace = prepare()
    experiment = models.get(config.experiment)
    count = len(cores.allowed())
    jobs = min(_JOBS.value or count, len(runs))
    with Progress(runs, config, images, workspace) as progress:
        records = pool.execute_all(runs, config.to_dict(), workspace, jobs, progress.show)
    records = list(records.values())
    results = {
        **provenance("reproduce"),
        "paper": _PAPER.value,
        "experiment": config.experiment,
        "subset": config.subset,
        "title": experiment.TITLE,
        "description": experiment.DESCRIPTION,
        "machine": {"cpus": count, "jobs": jobs, "threads": cores.threads_of_each(jobs)},
        "config": config.to_dict(),
        "data": {
            "source": images.source,
            "train": len(images.train),
            "test": len(images.test),
            "size": " x ".join(map(str, images.train.shape[1:3])),
        },
        "claims": claims.claims(records, config, images),
        "runs": records,
    }
    results["seconds"] = time.perf_counter() - begin
    write_json(workspace.path / "results.json", results)
    page = write_page(workspace.path / "report.html", results, pictures(records, workspace))
    for claim in results["claims"]:
        print(f"{claim['verdict']}: {claim['claim']} {claim['evidence']}\n")
    print(f"Results: {workspace.path / 'results.json'}\nReport:  {page}")


def work():
    """The reproduction. Trainings save their state; all else can be done again."""
    with interruptible(at_once=True):
        reproduce()


def run():
    """Entry point: flags, then `work`."""
    command_line.run(work, parse)


if __name__ == "__main__":
    run()
