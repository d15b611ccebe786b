"""Page of a reproduction: its sections, and how it is written."""

from experiments.report import document
from experiments.report.text import DASH, duration, escape, integer, listing
from experiments.reproduction import figures, groups, page_style, panels, tables

_PAIRS = 12  # with more, those of the settings that are not the base are folded away


def write_page(path, results, pictures):
    """Writes a reproduction as one HTML file that needs nothing else: no network, no script.

    The file appears as a whole or not at all. Values that are None, NaN or absent are shown as
    a dash, and all text is escaped.

    Args:
        path: where to write it; a file that is there is replaced.
        results: the contents of `results.json`: `"runs"`, `"claims"` and what describes them.
        pictures: run -> `{"truth": ..., "measurement": ..., "estimate": ..., "filters": {"A":
            ..., "C": ...}}` with pictures `(images, height, width, channels)` on [−1, 1] and
            filters `(count, height, width, channels)`. Runs may be missing.

    Returns:
        The path, as a `pathlib.Path`.

    Raises:
        ValueError: if `results` has no runs, or `pictures` names a run that is not there.
    """
    runs = results.get("runs") if isinstance(results, dict) else None
    if not isinstance(runs, list | tuple) or not runs:
        received = f"the keys {list(results)}" if isinstance(results, dict) else type(results)
        raise ValueError(
            "Expected `results` as a dict with the key 'runs', a list of at least one run. "
            f"Received {received}, of which 'runs' is {runs!r}: pass the contents of results.json."
        )
    known = [run.get("id") for run in runs]
    if unknown := set(pictures) - set(known):
        raise ValueError(
            f"Expected the keys of `pictures` among the runs {known}. Received also "
            f"{sorted(map(str, unknown))}: add their results or leave their pictures out."
        )
    return document.write(path, _page(results, pictures))


def _page(results, pictures):
    sections = _sections(results["runs"], pictures)
    return document.document(
        str(results.get("title") or "A reproduction"),
        _header(results, [(key, title) for key, title, _, _ in sections]),
        "".join(
            f'<section id="{key}"><h2>{title}</h2>{note and f"<p>{note}</p>"}{body}</section>'
            for key, title, note, body in sections
        ),
        _footer(results),
        page_style.CSS,
    )


def _sections(runs, pictures):
    """The sections that have something to show: key, title, first paragraph, the rest."""
    found = groups.grouped(runs)
    pictured = panels.shown(found, pictures)
    sections = [
        (
            "losses",
            "Loss against epoch",
            "Epoch 0 is before training. Full lines are <b>ours</b>, dashed ones <b>paper</b>; "
            "hollow points are the authors' own code on the same data, where it was run.",
            figures.losses(found),
        ),
        (
            "iterations",
            "Iterations",
            "What the solves took, forward for the reconstruction and backward for its "
            "derivative, on average over an epoch; and how far from a solution they stopped.",
            figures.iterations(found),
        ),
        (
            "sweeps",
            "One number at a time",
            "The test loss after training where one number was varied and all else agrees.",
            figures.sweeps(groups.sweeps(runs)),
        ),
        (
            "costs",
            "What unconverged solves cost",
            "The same settings in both modes. <i>Solved exactly</i> is the test loss of the same "
            "weights with solves that converge; the gradient's error and cosine compare the "
            "derivative that the mode trained with against the exact one, on one batch.",
            _costs(found, runs),
        ),
        (
            "original",
            "Against the authors' code",
            "The authors' own program on the same data, epoch by epoch. A difference is relative "
            "to theirs.",
            tables.original(runs),
        ),
        (
            "pictures",
            "Reconstructions",
            "Test images with the mean squared error of each, on the scale [−1, 1]."
            '<span class="hint" hidden> Click a picture and it fills the window; the arrow keys, '
            "or further clicks, then flip between the methods.</span>",
            panels.reconstructions(pictured, pictures),
        ),
        (
            "filters",
            "Learned filters",
            f"The map of the equilibrium model is that of the bilevel one if its second set of "
            f"filters, C, equals its first, A. At most {panels.FILTERS} filters are shown, the "
            "greatest of A; the same place is the same filter in A, C and C − A. Of a bilevel "
            "model A is all there is.",
            panels.filters(pictured, pictures),
        ),
    ]
    fold = f"<details><summary>{len(runs)} runs</summary>{tables.everything(runs)}</details>"
    return [s for s in sections if s[3]] + [("runs", "All runs", "", fold)]


def _costs(found, runs):
    """The pairs of the base settings, and those of the others in a fold if they are many."""
    many = len(groups.pairs(runs)) > _PAIRS
    base = [run for group in found for run in group.runs if group.base or not many]
    rest = [run for group in found for run in group.runs if not group.base and many]
    folded = tables.costs(rest, runs)
    if folded:
        count = len(groups.pairs(rest))
        folded = f"<details><summary>{count} more pairs</summary>{folded}</details>"
    return tables.costs(base, runs) + folded


def _lead(claims):
    """What became of the claims, in a sentence."""
    counts = dict.fromkeys(tables.VERDICTS, 0)
    for claim in claims:
        verdict = str(claim.get("verdict") or "not tested")
        counts[verdict] = counts.get(verdict, 0) + 1
    said = {
        "supported": ("is supported", "are supported"),
        "contradicted": ("is contradicted", "are contradicted"),
        "mixed": ("gives a mixed picture", "give a mixed picture"),
        "not tested": ("was not tested", "were not tested"),
    }
    parts = [
        f"{count} {said[verdict][count > 1] if verdict in said else verdict}"
        for verdict, count in counts.items()
        if count
    ]
    if not parts:
        return "No claim of the paper was judged in this run."
    total = len(claims)
    return f"Of {total} claim{'s' if total > 1 else ''} of the paper, {listing(parts)}."


def _header(results, contents):
    runs, claims = results["runs"], results.get("claims") or []
    where = [results.get("experiment"), results.get("subset")]
    kicker = " · ".join(["A reproduction", *(str(w) for w in where if w)])
    description = results.get("description")
    description = f'<p class="description">{escape(description)}</p>' if description else ""
    failed = sum(bool(run.get("failed")) for run in runs)
    notes = [f"{len(runs)} runs" if len(runs) > 1 else "One run"]
    if failed:
        notes.append(f"{failed} failed, and why is said under All runs")
    if shared := groups.common(runs):
        notes.append(f"the same for all: {shared}")
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in contents)
    return f"""<header>
<p class="kicker">deq_keras · {escape(kicker)}</p>
<h1>{escape(results.get("title") or "A reproduction")}</h1>
<p class="lead"><b>{escape(_lead(claims))}</b></p>
{description}
<div class="intro"><div><p>The experiments of {document.CITATION}, made again. Bilevel learning is
the special case of a deep equilibrium model whose map <i>f</i> is a gradient step on an
energy.</p>
<p class="modes">Each is run in two modes. <b>paper</b>: the published solver with its tolerance
and its cap on steps, which may stop before a solution. <b>ours</b>: solves that converge, forward
and backward.</p></div>
{document.FORMULAS}</div>
<h2 id="claims">Claims</h2>
{tables.claims(claims)}
<p class="note">{escape("; ".join(notes))}. Losses are mean squared errors on images on
[−1, 1].</p>
<nav aria-label="Sections">{links}</nav>
</header>"""


def _footer(results):
    data, machine = results.get("data") or {}, results.get("machine") or {}
    described = [
        ("Source", data.get("source") or DASH),
        ("Train", f"{integer(data.get('train'))} images"),
        ("Test", f"{integer(data.get('test'))} images"),
        ("Size", data.get("size") or DASH),
    ]
    parts = [
        f"{key if key != 'cpus' else 'CPUs'} {integer(machine.get(key))}"
        for key in ("cpus", "jobs", "threads")
    ]
    run = [
        ("Paper", results.get("paper") or DASH),
        ("Experiment", results.get("experiment") or DASH),
        ("Subset", results.get("subset") or DASH),
        ("Made", document.date(results.get("created"))),
        ("Took", duration(results.get("seconds"))),
        ("Versions", document.versions(results)),
        ("Machine", ", ".join(parts)),
    ]
    return document.making(results, described, run)
