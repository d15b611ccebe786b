"""Evidence for a claim: pairs of runs, ratios of their results, and the words for them."""

import statistics

MODES = {"paper": "published solvers", "ours": "our solvers"}
SAME = 1e-3  # relative: losses closer than this count as equal


def claim(text, source, verdict, evidence):
    """A claim with its verdict: a word, or whether it is supported, `None` if not tested."""
    words = {True: "supported", False: "contradicted", None: "not tested"}
    verdict = words.get(verdict, verdict)
    return {"claim": text, "source": source, "verdict": verdict, "evidence": evidence}


def share(good, count):
    """The verdict on a claim that holds in some of the cases."""
    if not count:
        return None
    return True if good == count else False if not good else "mixed"


def pairs(records, first, second, *, free=()):
    """Pairs of records that agree but for some settings: `first` has these values, `second` those.

    Args:
        records: All records.
        first, second: Dictionaries of settings.
        free: Settings that may differ as well.
    """
    ignored = {*first, *second, *free}

    def rest(record):
        return {k: v for k, v in record["settings"].items() if k not in ignored}

    def having(values):
        return [r for r in records if values.items() <= r["settings"].items()]

    return [(a, b) for a in having(first) for b in having(second) if rest(a) == rest(b)]


def names(records):
    """The names of some records, for a sentence."""
    shown = ", ".join(record["id"] for record in records[:3])
    return f"{shown}{' and others' if len(records) > 3 else ''}."


def ratios(of_pairs, entry):
    """The ratios of an entry of the final results, of the second records to the first ones."""
    return [b["final"][entry] / a["final"][entry] for a, b in of_pairs]


def lower(text, source, of_pairs, entry, what, missing="No such runs."):
    """The claim that an entry of the final results is lower in the second records of pairs.

    Args:
        text, source: As of `claim`.
        of_pairs: Pairs of records.
        entry: Of the final results.
        what: The ratio in words.
        missing: What is said if there are no pairs.
    """
    if not of_pairs:
        return claim(text, source, None, missing)
    found = ratios(of_pairs, entry)
    good = sum(ratio < 1 - SAME for ratio in found)
    said = f"In {good} of {len(found)} pairs; {what}: {spread(found)}."
    return claim(text, source, share(good, len(found)), said)


def spread(numbers):
    """Ratios in words."""
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    return f"{middle:.3f} (median; {low:.3f} to {high:.3f})"


def sentence(text):
    """Text as a sentence."""
    return text[:1].upper() + text[1:] + "."


def of_mode(records, fidelity):
    """The records of the paper's solvers or of ours."""
    return [record for record in records if record["settings"]["fidelity"] == fidelity]


def known(records, entry):
    """For each mode its name in words, the final results that have an entry, and the number of all.

    Returns:
        Dictionary from `"paper"` and `"ours"`, as far as there are such results.
    """
    found = {}
    for fidelity, name in MODES.items():
        finals = [record["final"] for record in of_mode(records, fidelity)]
        having = [final for final in finals if final.get(entry) is not None]
        if having:
            found[fidelity] = (name, having, len(finals))
    return found
