"""Claims of the paper, each with the numbers that support or contradict it here."""

import statistics

from experiments.reproduction import evidence, groups, own_claims
from experiments.reproduction.evidence import SAME
from experiments.reproduction.special_case import special_case

# The bilevel model that is trained on, and the equilibrium model that starts from it.
_FURTHER = (
    {"model": "bilevel", "start": "bilevel_further"},
    {"model": "equilibrium", "start": "bilevel"},
)
_ABSTRACT, _SETUP = "the abstract", "the experiments' set-up"


def claims(records, config, images):
    """What the paper claims or takes for granted, and what came out.

    Args:
        records: Those of all runs, see `experiments.reproduction.training.execute`.
        config: The configuration of the experiment.
        images: Its `experiments.reproduction.images.Images`.

    Returns:
        List of `{"claim", "source", "verdict", "evidence"}`; the verdict is `"supported"`,
        `"contradicted"`, `"mixed"` or `"not tested"`.
    """
    finished = [record for record in records if not record["failed"]]
    found = [
        _special_case(records, config, images),
        _improvement(finished),
        _from_the_bilevel_model(finished),
        _from_random_weights(finished),
        _generalisation(finished),
        _convergence(finished),
        _gradients(finished),
        _solved_exactly(finished),
        _cost(finished),
    ]
    found += [function(finished) for function in own_claims.OF[config.experiment]]
    failed = [record for record in records if record["failed"]]
    if failed:
        text = f"{len(failed)} of {len(records)} ended in numbers that are not finite: "
        text += evidence.names(failed)
        found.append(evidence.claim("Every training can be run to its end.", _SETUP, False, text))
    return found


def _special_case(records, config, images):
    claim = "Bilevel learning whose lower level is solved by a fixed-point iteration is a special "
    claim += "case of a deep equilibrium model."
    if not records:
        return evidence.claim(claim, _ABSTRACT, None, "")
    estimate, gradient = special_case(records[0]["settings"], config, images)
    text = f"With tied weights, in double precision, the reconstructions differ by {estimate:.0e} "
    text += f"and the gradients by {gradient:.0e} (relative)."
    return evidence.claim(claim, _ABSTRACT, max(estimate, gradient) < 1e-6, text)


def _improvement(records):
    claim = "Both methods solve the inverse problems: the test loss is below that of the "
    claim += "measurement."
    worse = [r for r in records if not r["final"]["test_loss"] < r["measurement"]["test_loss"]]
    good = len(records) - len(worse)
    text = f"In {good} of {len(records)} runs."
    if worse:
        text += " Not in " + evidence.names(worse)
    return evidence.claim(claim, _ABSTRACT, evidence.share(good, len(records)), text)


def _from_the_bilevel_model(records):
    claim = "Started from the trained bilevel model, and trained as long as that is trained on, "
    claim += "the equilibrium model has a training loss that is no higher."
    source = "the abstract: the special case is contained"
    pairs = evidence.pairs(records, *_FURTHER)
    if not pairs:
        return evidence.claim(claim, source, None, "No such runs.")
    ratios = evidence.ratios(pairs, "train_loss")
    good = sum(ratio <= 1 + SAME for ratio in ratios)
    text = f"In {good} of {len(pairs)} pairs; training loss of equilibrium over bilevel: "
    of_test = evidence.ratios(pairs, "test_loss")
    text += f"{evidence.spread(ratios)}, test loss: {evidence.spread(of_test)}."
    for (first, second), ratio in zip(pairs, ratios, strict=True):
        if ratio > 1 + SAME:
            text += f" Higher, {ratio:.3f} times: {second['id']}; {_why_higher(first, second)}."
    return evidence.claim(claim, source, evidence.share(good, len(pairs)), text)


def _why_higher(bilevel, equilibrium):
    """What may have kept an equilibrium model above the bilevel model that it contains."""
    share = equilibrium["epochs"][-1]["converged"]
    if share is not None and share < 1:
        return f"{1 - share:.0%} of its solves have not converged, so its gradients are wrong"
    falls = [
        1 - r["epochs"][-1]["train_loss"] / r["epochs"][-2]["train_loss"]
        for r in (bilevel, equilibrium)
    ]
    text = f"in the last epoch its loss fell by {falls[1]:.1%} and that of the bilevel model by "
    text += f"{falls[0]:.1%}"
    if falls[1] > SAME:
        # Of tied weights a step changes both factors, so the same rate moves the map further.
        text += ": it has not come to its end, and the same rate moves tied weights further"
    return text


def _from_random_weights(records):
    claim = "From the first weights of the paper and after equally many epochs, the equilibrium "
    claim += "model has the lower test loss."
    pairs = [
        pair
        for pair in evidence.pairs(records, {"model": "bilevel"}, {"model": "equilibrium"})
        if pair[0]["settings"]["start"] in ("random", "denoising")
    ]
    count = len(pairs[0][0]["epochs"]) - 1 if pairs else 0
    what = f"after {count} epochs, test loss of equilibrium over bilevel"
    return evidence.lower(claim, "the question of the paper", pairs, "test_loss", what)


def _generalisation(records):
    claim = "The equilibrium model, which has more parameters, generalises as well: its test loss "
    claim += "is not further from its training loss."
    source = "the question of the paper"
    pairs = evidence.pairs(records, *_FURTHER)
    if not pairs:
        return evidence.claim(claim, source, None, "No such runs.")
    gaps = [
        [r["final"]["test_loss"] / r["final"]["train_loss"] for r in column]
        for column in zip(*pairs, strict=True)
    ]
    good = sum(b <= 1.01 * a for a, b in zip(*gaps, strict=True))
    text = f"In {good} of {len(pairs)} pairs; test over training loss, median: bilevel "
    text += f"{statistics.median(gaps[0]):.3f}, equilibrium {statistics.median(gaps[1]):.3f}."
    return evidence.claim(claim, source, evidence.share(good, len(pairs)), text)


def _convergence(records):
    claim = "The published solvers reach their tolerance within their largest number of steps, "
    claim += "forward and backward."
    last = [record["epochs"][-1] for record in evidence.of_mode(records, "paper")]
    if not last:
        return evidence.claim(claim, _SETUP, None, "No run with the published solvers.")
    text, shares = [], []
    for name, key in (("forward", "converged"), ("backward", "backward_converged")):
        rows = [row for row in last if row.get(key) is not None]
        good = sum(row[key] == 1.0 for row in rows)
        shares.append(evidence.share(good, len(rows)))
        residuals = [row[f"{name}_residual"] for row in rows]
        steps = statistics.median(row[f"{name}_steps"] for row in rows)
        text.append(
            f"{name}: in the last epoch of {good} of {len(rows)} runs, {steps:.0f} steps (median), "
            f"true relative residuals of {min(residuals):.1e} to {max(residuals):.1e}"
        )
    ours = [record["epochs"][-1] for record in evidence.of_mode(records, "ours")]
    if ours:
        steps = [
            statistics.median(row[f"{name}_steps"] for row in ours)
            for name in ("forward", "backward")
        ]
        whole = sum(row["converged"] == row["backward_converged"] == 1.0 for row in ours)
        text.append(
            f"with our solvers and a tighter tolerance: {steps[0]:.0f} and {steps[1]:.0f} steps, "
            f"all solves converged in {whole} of {len(ours)} runs"
        )
    verdict = shares[0] if shares[0] == shares[1] else "mixed"
    return evidence.claim(claim, _SETUP, verdict, evidence.sentence("; ".join(text)))


def _gradients(records):
    claim = "The gradients that the published solves leave are those of the loss."
    text, errors = [], {}
    for fidelity, (name, finals, count) in evidence.known(records, "gradient_error").items():
        errors[fidelity] = [final["gradient_error"] for final in finals]
        cosine = min(final["gradient_cosine"] for final in finals)
        text.append(
            f"{name}: relative error {statistics.median(errors[fidelity]):.1e} (median; at "
            f"most {max(errors[fidelity]):.1e}), cosine at least {cosine:.4f}, in "
            f"{len(finals)} of {count} runs whose gradient can be computed exactly"
        )
    return _of_published(claim, text, errors, "Within one per cent counts as right.")


def _solved_exactly(records):
    claim = "A model that was trained with the published solves is as good when it is solved "
    claim += "exactly: it is the fixed point that has learned, not the iteration."
    text, gains = [], {}
    for fidelity, (name, finals, count) in evidence.known(records, "exact_test_loss").items():
        ratios = [final["exact_test_loss"] / final["test_loss"] for final in finals]
        gains[fidelity] = [ratio - 1 for ratio in ratios]
        text.append(
            f"{name}: test loss of the exact solution over that of the solves "
            f"{evidence.spread(ratios)}, in {len(finals)} of {count} runs that can be solved "
            "exactly"
        )
    return _of_published(claim, text, gains, "One per cent more counts as the same.")


def _of_published(claim, text, errors, threshold):
    """A claim that the relative errors with the published solvers are below one per cent.

    Args:
        claim: The claim.
        text: What is said of each mode.
        errors: Dictionary of modes to errors.
        threshold: A sentence on what counts.
    """
    said = evidence.sentence("; ".join(text)) if text else ""
    if "paper" not in errors:
        return evidence.claim(claim, _SETUP, None, said)
    good = sum(error < 0.01 for error in errors["paper"])
    verdict = evidence.share(good, len(errors["paper"]))
    return evidence.claim(claim, _SETUP, verdict, f"{said} {threshold}")


def _cost(records):
    claim = "Solves that converge, as ours do, cost more time than the published ones."
    pairs = evidence.pairs(records, {"fidelity": "ours"}, {"fidelity": "paper"})
    pairs = [pair for pair in pairs if all(len(r["epochs"]) > 2 for r in pair)]
    if not pairs:
        return evidence.claim(claim, "what one would expect", None, "No pairs of runs.")
    ratios = [
        groups.seconds_of_epoch(paper) / groups.seconds_of_epoch(ours) for ours, paper in pairs
    ]
    good = sum(ratio < 1 for ratio in ratios)
    text = f"In {good} of {len(pairs)} pairs; seconds of an epoch, published over ours: "
    text += f"{evidence.spread(ratios)}."
    losses = evidence.spread(evidence.ratios(pairs, "test_loss"))
    text += f" Test loss after equally many epochs, published over ours: {losses}."
    return evidence.claim(claim, "what one would expect", evidence.share(good, len(pairs)), text)
