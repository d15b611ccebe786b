"""Verdict on a task: what its numbers say, in words."""

from experiments.methods import METHODS, RECONSTRUCTIONS
from experiments.report.text import finite, listing, lowered

TIE = 0.05  # dB: closer than that is called a tie
_TIE_LOSS = 10 ** (TIE / 10)  # the same as a ratio of mean squared errors
_TIE_SSIM = 0.005
_NAMES = {key: method.phrase for key, method in METHODS.items()}


def verdict(task_results):
    """Says in a few sentences who won, by how much, and what to be wary of.

    Everything is computed from the numbers: a method within 0.05 dB of the best ties with it;
    a learned method that loses to total variation, one that fits the training images better
    but the test images worse (over-fitting), one that did not converge, and one without a
    result are named.

    Args:
        task_results: one entry of `results["tasks"]`. Values may be None, NaN or absent.

    Returns:
        A string of plain text, not yet escaped for HTML.

    Example:

    >>> scores = {"total_variation": 27.5, "bilevel": 28.0, "equilibrium": 28.02}
    >>> text = verdict({"methods": {m: {"psnr": psnr} for m, psnr in scores.items()}})
    >>> print(textwrap.fill(text, 70))
    The equilibrium model and the bilevel regulariser tie at 28.02 dB
    (less than 0.05 dB apart), 0.52 dB ahead of total variation.
    """
    methods = task_results.get("methods", {})
    sentences = [
        *_ranking(methods),
        *_similarity(methods),
        *_learning(methods, "bilevel", "total_variation"),
        *_learning(methods, "equilibrium", "bilevel"),
        *_convergence(methods),
        *_missing(methods),
    ]
    return " ".join(sentences)


def overall(tasks):
    """Says in a sentence in which tasks the equilibrium model beats the bilevel regulariser.

    Args:
        tasks: `results["tasks"]`: key -> task.

    Returns:
        A string of plain text.
    """
    groups = {"ahead": [], "level": [], "behind": []}
    for key, task in tasks.items():
        lead = _lead(task.get("methods", {}), "equilibrium", "bilevel")
        if lead is not None:
            side = "ahead" if lead >= TIE else "behind" if lead <= -TIE else "level"
            size = f" ({abs(lead):.2f} dB)" if side != "level" else ""
            groups[side].append(f"{lowered(task.get('title') or key)}{size}")
    known = [f"{side} in {listing(where)}" for side, where in groups.items() if where]
    if not known:
        return "This run does not say: it compares no equilibrium model with a bilevel one."
    return _sentence(f"against the bilevel regulariser, the equilibrium model is {listing(known)}")


def _get(methods, method, key):
    return finite((methods.get(method) or {}).get(key))


def _lead(methods, first, second):
    """How many decibels `first` is ahead of `second`; None if either is unknown."""
    a, b = _get(methods, first, "psnr"), _get(methods, second, "psnr")
    # Rounded, so that 28.40 is not within 0.05 of 28.35 by an error of the last digit.
    return None if a is None or b is None else round(a - b, 6)


def _scores(methods, key="psnr"):
    scores = {m: _get(methods, m, key) for m in RECONSTRUCTIONS}
    scores = {m: score for m, score in scores.items() if score is not None}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def _sentence(text):
    return text[:1].upper() + text[1:] + "."


def _ranking(methods):
    order = list(_scores(methods))
    if not order:
        return ["No method has a finite PSNR, so there is nothing to rank."]
    best, *others = order
    score = f"{_get(methods, best, 'psnr'):.2f} dB"
    tied = [m for m in others if _lead(methods, best, m) < TIE]
    ahead = [
        f"{_lead(methods, best, m):.2f} dB ahead of {_NAMES[m]}" for m in others if m not in tied
    ]
    if tied:
        text = f"{listing(_NAMES[m] for m in [best, *tied])} tie at {score}"
        text += f" (less than {TIE} dB apart)"
    else:
        text = f"{_NAMES[best]} {'wins with' if others else 'alone has a result:'} {score}"
    text = ", ".join([text, listing(ahead)] if ahead else [text])
    sentences = [_sentence(text + _each_image(methods))]
    gain = _lead(methods, best, "measurement")
    if gain is not None:
        # In parentheses is what is shown of a measurement that is not an image.
        name = (methods["measurement"].get("label") or "").lower()
        name = f"the {name}" if "(" in name else _NAMES["measurement"]
        if gain >= TIE:
            text = f"{name} is {gain:.2f} dB below"
        elif gain > -TIE:
            text = f"that is no better than {name} itself"
        else:
            text = f"that is {-gain:.2f} dB worse than {name} itself"
        sentences.append(_sentence(text))
    return sentences


def _each_image(methods):
    """On how many test images the winner is ahead."""
    order = list(_scores(methods))
    if len(order) < 2 or _lead(methods, *order[:2]) < TIE:
        return ""
    columns = [[finite(i.get("psnr")) for i in methods[m].get("images") or []] for m in order]
    count = len(columns[0])
    if count < 2 or any(len(c) != count or None in c for c in columns):
        return ""
    won = sum(row[0] >= max(row) for row in zip(*columns, strict=True))
    which = f"each of the {count}" if won == count else f"{won} of the {count}"
    return f"; it is ahead on {which} test images"


def _similarity(methods):
    """Whether SSIM prefers another method than PSNR does."""
    by_psnr, by_ssim = list(_scores(methods)), _scores(methods, "ssim")
    if not by_psnr or by_psnr[0] not in by_ssim:
        return []
    best = next(iter(by_ssim))
    if by_ssim[best] - by_ssim[by_psnr[0]] < _TIE_SSIM:
        return []
    other = f"{by_ssim[best]:.3f} against {by_ssim[by_psnr[0]]:.3f}"
    return [f"By SSIM, {_NAMES[best]} is ahead instead ({other})."]


def _learning(methods, later, earlier):
    """Whether `later`, which can do all that `earlier` can, is worse; and whether it over-fits."""
    lead = _lead(methods, later, earlier)
    train = [_get(methods, m, "train_loss") for m in (later, earlier)]
    test = [_get(methods, m, "test_loss") for m in (later, earlier)]
    loses = lead is not None and lead <= -TIE
    worse = loses or (
        (lead is None or lead < TIE) and None not in test and test[0] > _TIE_LOSS * test[1]
    )
    if not worse:
        return []
    if not loses:
        text = f"{_NAMES[later]} has a higher test loss than {_NAMES[earlier]}"
    elif later == "bilevel":
        text = (
            f"learning did not pay here: {_NAMES[later]} is {-lead:.2f} dB below {_NAMES[earlier]}"
        )
    else:
        text = f"training on from the bilevel model cost {-lead:.2f} dB on the test images"
    if None not in train:
        pair = f"{1e3 * train[0]:.3g} against {1e3 * train[1]:.3g} × 10⁻³"
        if train[0] < train[1]:
            text += f", although it fits the training images better ({pair}): over-fitting"
        else:
            text += f"; its training loss is no lower either ({pair}), so this is not over-fitting"
    return [_sentence(text)]


def _convergence(methods):
    stopped = []
    for method in RECONSTRUCTIONS:
        share = _get(methods, method, "converged")
        if share is None or share >= 1:
            continue
        flags = [image.get("converged") for image in methods[method].get("images") or []]
        if flags and None not in flags and not all(flags):
            count = sum(not flag for flag in flags)
            if len(flags) == 1:
                on = "the test image"
            else:
                on = f"{'all' if count == len(flags) else f'{count} of'} {len(flags)} test images"
        else:
            on = f"{max(1, round(100 * (1 - share)))} % of the test images"
        stopped.append(f"{_NAMES[method]} on {on}")
    if not stopped:
        return []
    one = len(stopped) == 1
    whose = "its numbers are those of where it" if one else "their numbers are those of where they"
    text = f"not everything converged: {listing(stopped)} did not reach the tolerance; {whose}"
    return [_sentence(f"{text} stopped")]


def _missing(methods):
    missing = [m for m in RECONSTRUCTIONS if _get(methods, m, "psnr") is None]
    if not missing or len(missing) == len(RECONSTRUCTIONS):
        return []
    return [f"There is no PSNR for {listing(_NAMES[m] for m in missing)}."]
