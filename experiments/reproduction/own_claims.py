"""Claims about one experiment alone; see `experiments.reproduction.claims`."""

import statistics

from experiments.reproduction import evidence
from experiments.reproduction.evidence import SAME

_QUESTION = "the question of the paper"


def step_size(records):
    """Whether the losses of runs that differ in tau alone differ."""
    claim = "The step tau decides what is learned."
    text, verdict = [], None
    for fidelity, name in reversed(evidence.MODES.items()):
        ratios = []
        for a, b in evidence.pairs(evidence.of_mode(records, fidelity), {}, {}, free=("tau",)):
            settings = a["settings"]
            # The threshold of soft shrinkage is tau as well: that is another model.
            if settings["tau"] < b["settings"]["tau"] and settings["activation"] in (
                "relu",
                "identity",
            ):
                ratios.append(b["final"]["test_loss"] / a["final"]["test_loss"])
        if ratios:
            text.append(
                f"{name}: test loss with the longer step over that with the shorter one "
                f"{evidence.spread(ratios)}"
            )
            changed = sum(abs(ratio - 1) > SAME for ratio in ratios)
            if fidelity == "ours":
                verdict = evidence.share(changed, len(ratios))
    said = evidence.sentence("; ".join(text)) if text else "One step only."
    said += " A fixed point does not depend on tau (but for the threshold of soft shrinkage): "
    said += "differences are those of solves that have not converged."
    return evidence.claim(claim, "the experiments' set-up", verdict, said)


def authors_code(records):
    """Whether the losses are those that the authors' code has."""
    claim = "With the published solvers the losses are those of the authors' code."
    source = "this project"
    differences = {}
    for record in evidence.of_mode(records, "paper"):
        rows = {row["epoch"]: row for row in record["epochs"]}
        for epoch, train, test in record["original"]:
            if epoch in rows:
                row = rows[epoch]
                differences[record["id"], epoch] = max(
                    abs(row["train_loss"] / train - 1), abs(row["test_loss"] / test - 1)
                )
    if not differences:
        return evidence.claim(claim, source, None, "No run with settings for which they are known.")
    (worst, epoch), largest = max(differences.items(), key=lambda item: item[1])
    good = sum(difference < 0.05 for difference in differences.values())
    text = f"{good} of {len(differences)} pairs (training, test) within 5 %; the largest "
    text += f"difference is {largest:.1%}, of {worst} after epoch {epoch}. They hold for 9,000 "
    text += "digits to train on; weights, noise and order are drawn differently."
    return evidence.claim(claim, source, evidence.share(good, len(differences)), text)


def norms(records):
    """Whether it helps to divide filters by their norms."""
    claim = "Filters of fixed norm reach a lower training loss than free ones."
    pairs = evidence.pairs(records, {"norms": False}, {"norms": True})
    what = "training loss with norms over without"
    return evidence.lower(claim, _QUESTION, pairs, "train_loss", what)


def start_from_denoising(records):
    """Whether deconvolution gains from models that were trained for denoising."""
    claim = "For deconvolution, models that start from those for denoising reach a lower training "
    claim += "loss than from scratch."
    pairs = evidence.pairs(records, {"start": "random"}, {"start": "denoising"})
    what = "training loss from denoising over from scratch"
    missing = "Both starts are in the full set of runs only."
    return evidence.lower(claim, _QUESTION, pairs, "train_loss", what, missing)


def distance(records):
    """How far the two sets of filters of an equilibrium model come apart."""
    claim = "The filters A and C of the equilibrium model, equal at first, stay near each other."
    found = [r["final"]["distance"] for r in records if r["final"].get("distance") is not None]
    if not found:
        return evidence.claim(claim, _QUESTION, None, "No equilibrium model.")
    text = f"||C - A|| / ||A|| after training: {statistics.median(found):.2f} (median; "
    text += f"{min(found):.2f} to {max(found):.2f})."
    good = sum(distance < 0.5 for distance in found)
    return evidence.claim(claim, _QUESTION, evidence.share(good, len(found)), text)


OF = {
    "mnist": (step_size, authors_code),
    "faces": (norms, start_from_denoising, distance),
}
