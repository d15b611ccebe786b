"""The page of a reproduction: complete in itself, and it holds what was measured."""

import base64
import copy
import io
import itertools
import math
import re

import numpy as np
import pytest
from PIL import Image

from experiments.reproduction import figures, groups, panels, tables
from experiments.reproduction.page import write_page
from tests.experiments.html_page import Page

EVIL = '<script>alert("1")</script>'


def made_up_run(epochs=3, loss=0.17, **settings):
    """A run that nobody made."""
    settings = {
        **dict(task="denoising", model="bilevel", fidelity="ours", start="random"),
        **dict(noise=0.5, tau=0.1, gamma=0.5, activation="relu"),
        **settings,
    }
    ours = settings["fidelity"] == "ours"
    entries = [dict(epoch=0, train_loss=0.23, test_loss=0.231)]
    entries += [
        dict(
            epoch=epoch,
            train_loss=loss + 0.1 / epoch,
            test_loss=loss + 0.11 / epoch,
            seconds=(5.0 if ours else 2.0) * (9 if ours and epoch == 1 else 1),  # traced
            forward_steps=30.5 if ours else 8.25,
            backward_steps=7.0,
            forward_residual=1e-6 if ours else 3e-4,
            backward_residual=1e-6 if ours else 2e-2,
            converged=1.0 if ours else 0.25,
            backward_converged=1.0,
        )
        for epoch in range(1, epochs + 1)
    ]
    return dict(
        id="/".join(str(v) for v in settings.values()),
        settings=settings,
        measurement=dict(train_loss=0.25, test_loss=0.2512),
        epochs=entries,
        final=dict(
            train_loss=loss,
            test_loss=loss + 0.001,
            exact_test_loss=loss + 0.002,
            psnr=13.57,
            gradient_error=1e-6 if ours else 0.345,
            gradient_cosine=1.0 if ours else 0.9321,
            initial_gradient_error=0.01,
            forward_steps=31.5,
            converged=1.0 if ours else 0.25,
        ),
        parameters=5678,
        seconds=12.0,
        failed=None,
    )


def four(**settings):
    """Both models in both modes."""
    return [
        made_up_run(model=model, fidelity=mode, loss=loss, **settings)
        for (model, mode), loss in zip(
            itertools.product(("bilevel", "equilibrium"), ("paper", "ours")),
            (0.18, 0.17, 0.16, 0.15),
            strict=True,
        )
    ]


def made_up(*settings):
    """Results of `four` runs for each of these settings."""
    runs = [run for s in settings or ({},) for run in four(**s)]
    return dict(
        paper="riccio2022",
        experiment="mnist",
        subset="quick",
        title="Digits, again",
        description="Noisy digits.",
        created="2025-01-31T12:00:00Z",
        command="python -m experiments.reproduce --experiment=mnist",
        versions=dict(deq_keras="0", python="3"),
        machine=dict(cpus=2, jobs=1, threads=2),
        seconds=120.0,
        config=dict(batch=32),
        data=dict(source="invented", train=1000, test=100, size="28 x 28"),
        claims=[
            dict(claim=f"Claim {v}", source="Figure 3", verdict=v, evidence=f"Evidence {v}")
            for v in ("supported", "contradicted", "mixed", "not tested", "supported")
        ],
        runs=runs,
    )


def made_up_pictures(run, count=2, side=12, filters=5):
    rng = np.random.default_rng(0)
    kinds = ("truth", "measurement", "estimate")
    entry = {k: rng.uniform(-1, 1, (count, side, side, 1)) for k in kinds}
    kernels = {"A": rng.standard_normal((filters, 3, 3, 1))}
    if run["settings"]["model"] == "equilibrium":
        kernels["C"] = kernels["A"] + 0.1 * rng.standard_normal((filters, 3, 3, 1))
    return {**entry, "filters": kernels}


def pictures_of(results, **options):
    return {run["id"]: made_up_pictures(run, **options) for run in results["runs"]}


def written(folder, results, pictures=None):
    path = write_page(folder / "page.html", results, pictures or {})
    assert [p.name for p in folder.iterdir()] == ["page.html"]
    assert path.stat().st_size < 3e6
    return Page(path.read_text("utf-8"))


def sections(page):
    return [attrs["id"] for attrs in page.all("section") if "id" in attrs]


@pytest.mark.parametrize("settings", [[{}], [{}, {"task": "inpainting"}, {"noise": 0.25}]])
def test_the_page_is_complete_in_itself(tmp_path, settings):
    results = made_up(*settings)
    results["runs"][0]["original"] = [[0, 0.2304, 0.2299], [1, 0.1965, 0.1783]]
    page = written(tmp_path, results, pictures_of(results))
    page.check_complete()
    assert all(image["src"].startswith("data:image/png;") for image in page.all("img"))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_the_page_holds_what_was_measured(tmp_path):
    results = made_up({}, {"noise": 0.25})
    results["runs"][0]["original"] = [[0, 0.2304, 0.2299], [1, 0.1965, 0.1783]]
    page = written(tmp_path, results, pictures_of(results))
    expected = "losses iterations sweeps costs original pictures filters runs".split()
    assert sections(page) == expected
    for text in (
        "Digits, again",
        "Of 5 claims of the paper, 2 are supported, 1 is contradicted, 1 gives a mixed picture",
        "and 1 was not tested.",
        "✗ contradicted",
        "Evidence mixed",
        "The measurement itself has a test loss of 0.251.",
        "0.9321",
        "2.5 ×",  # 5 seconds an epoch against 2
        "0.345",
        "25 %",
        "the same for all: Denoising, τ 0.1, γ 0.5, relu",
        "5\u202f678",
        "31 January 2025",
        "1\u202f000 images",
        '"batch": 32',
        results["command"],
    ):
        assert " ".join(text.split()) in page.words
    # (0.23 − 0.2304) / 0.2304 and (0.231 − 0.2299) / 0.2299
    assert "0.2304 0.2300 −0.17 % 0.2299 0.2310 +0.48 %" in re.sub(
        "<[^>]*>+", " ", page.source
    ).replace("  ", " ")


def test_modes_are_dashes_and_models_are_colours():
    svg = figures.losses(groups.grouped(four()))
    test, train = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', svg, flags=re.S)
    for plot in (test, train):
        for model in ("bilevel", "equilibrium"):
            lines = re.findall(rf'style="[^"]*stroke: var\(--{model}\)[^"]*"', plot)
            assert sum("stroke-dasharray" in line for line in lines) == 1
    assert "the authors' code" not in Page(svg).words


def test_the_authors_points_are_hollow_and_have_no_line():
    runs = four()
    before = figures.losses(groups.grouped(runs))
    runs[0]["original"] = [[0, 0.2304, 0.2299], [1, 0.1965, 0.1783]]
    after = figures.losses(groups.grouped(runs))
    assert "Bilevel, the authors' code" in Page(after).words
    assert "Equilibrium, the authors' code" not in Page(after).words
    lines = re.compile(r'<path d="[^"]*" clip-path[^>]*stroke: var\(--bilevel\)')
    assert len(lines.findall(after)) == len(lines.findall(before)) > 0
    hollow = re.compile(r"<use [^>]*fill-opacity: 0[^>]*stroke: var\(--bilevel\)")
    assert len(hollow.findall(after)) == 2 * len(runs[0]["original"])
    assert not hollow.findall(before)


def test_starts_are_told_apart_by_name_and_marker():
    runs = four()[2:] + [made_up_run(model="equilibrium", start="bilevel")]
    assert [groups.curve(run, runs) for run in runs] == [
        "Equilibrium, paper, from scratch",
        "Equilibrium, ours, from scratch",
        "Equilibrium, ours, from the bilevel weights",
    ]
    assert len({groups.line(run, None, None).marker for run in runs}) == 2
    # One start is not worth a word.
    assert groups.curve(runs[0], runs[:2]) == "Equilibrium, paper"


@pytest.mark.slow
def test_many_pairs_are_folded(tmp_path):
    settings = [{"noise": noise} for noise in (0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7)]
    assert "more pairs" not in written(tmp_path, made_up(*settings[:6])).words
    assert "12 more pairs" in written(tmp_path, made_up(*settings)).words


@pytest.mark.parametrize("nothing", [None, math.nan, "absent"])
def test_what_is_missing_is_a_dash(tmp_path, nothing):
    def emptied(value):
        if isinstance(value, dict):
            kept = {k: emptied(v) for k, v in value.items()}
            return {k: v for k, v in kept.items() if not (isinstance(v, str) and v == "absent")}
        if isinstance(value, list):
            return [emptied(v) for v in value]
        return value if isinstance(value, str | bool | None) else nothing

    results = made_up({}, {"noise": 0.25})
    runs = copy.deepcopy(results["runs"])
    for run in results["runs"]:
        for key in ("measurement", "epochs", "final", "parameters", "seconds"):
            run[key] = emptied(run[key]) if key in run else None
    results["runs"][0]["original"] = [[0, None, math.nan], [None, 0.2, 0.2], [math.nan, 0.1, 0.1]]
    page = written(tmp_path, results)
    assert "nan" not in page.words.lower()
    assert "–" in page.words
    written(tmp_path, {"runs": [{}, {"settings": None, "epochs": None, "final": None}]})
    written(tmp_path, {"runs": runs[:1], "claims": None, "data": None, "machine": None})
    written(tmp_path, {"runs": [{"id": "a", "epochs": [None, {}], "original": [None]}]})


def test_a_failed_run_is_named_and_its_reason_said(tmp_path):
    results = made_up()
    failed = results["runs"][0]
    failed.update(failed="the loss is not finite", epochs=failed["epochs"][:1])
    del failed["final"]
    page = written(tmp_path, results)
    assert "1 failed" in page.words
    assert "the loss is not finite" in page.words


def test_text_is_escaped(tmp_path):
    results = made_up({"activation": EVIL, EVIL: EVIL}, {"task": EVIL})
    for run in results["runs"]:
        run["id"] += EVIL
        run["failed"] = EVIL
    results["runs"][0]["original"] = [[0, 0.2, 0.2]]
    for key in ("paper", "experiment", "subset", "title", "description", "created", "command"):
        results[key] = EVIL
    results["versions"] = results["config"] = {EVIL: EVIL}
    results["data"] = dict(source=EVIL, size=EVIL, train=EVIL)
    results["claims"] = [dict.fromkeys(("claim", "source", "verdict", "evidence"), EVIL)]
    page = written(tmp_path, results, pictures_of(results))
    assert len(page.all("script")) == 1  # the page's own
    assert EVIL not in page.source
    assert page.words.count("alert") >= 20


def test_without_claims_the_page_says_so(tmp_path):
    page = written(tmp_path, {**made_up(), "claims": []})
    assert "No claim of the paper was judged" in page.words
    assert "No claim was judged in this run." in page.words


def test_mistakes_say_how_to_mend_them(tmp_path):
    for results in ({}, {"runs": []}, {"runs": {}}, None):
        with pytest.raises(ValueError, match=r"'runs'.*at least one run.*results\.json"):
            write_page(tmp_path / "page.html", results, {})
    results = made_up()
    with pytest.raises(ValueError, match="Received also.*'other'"):
        write_page(tmp_path / "page.html", results, {"other": {}})
    pictures = pictures_of(results)
    own = pictures[results["runs"][1]["id"]]
    for wrong, said in (
        ({"truth": np.zeros((8, 8))}, r"\(8, 8\): add the axis"),
        ({"filters": {"A": np.zeros((3, 3))}}, r"\(3, 3\): transpose them"),
    ):
        with pytest.raises(ValueError, match=said):
            write_page(
                tmp_path / "page.html",
                results,
                {**pictures, results["runs"][1]["id"]: {**own, **wrong}},
            )
    assert not list(tmp_path.iterdir())


def swept(runs):
    return [(s.key, len(s.runs)) for s in groups.sweeps(runs)]


def test_a_sweep_is_where_all_other_settings_agree():
    base, other = four(), four(noise=0.25)
    assert swept(base) == []
    assert swept(base + other) == [("noise", 8)]
    # Two numbers at once are no sweep.
    assert swept(base + four(noise=0.25, tau=0.2)) == []
    assert swept(base + four(noise=0.25, activation="tanh")) == []
    assert swept(base + four(noise=0.25, task="inpainting")) == []
    # A number that only other curves have makes none.
    assert swept([base[0], other[1]]) == []
    # Each task has its own, and numbers other than floats count too.
    more = base + other + four(task="deblurring", blur=5) + four(task="deblurring", blur=9)
    assert swept(more) == [("noise", 8), ("blur", 8)]
    # A failed run is no point of it, a flag and a seed are no numbers.
    failed = [{**run, "failed": "yes"} for run in other]
    assert swept(base + failed) == []
    assert swept(four(norms=True) + four(norms=False)) == []
    assert swept(four(seed=1) + four(seed=2)) == []


def test_a_sweep_is_one_plot_with_its_points_in_order():
    runs = four(noise=0.5) + four(noise=1) + four(noise=0.25)
    html = figures.sweeps(groups.sweeps(runs))
    assert html.count('role="img"') == 1
    assert "Against noise: Denoising" in Page(html).words
    assert figures.sweeps([]) == ""


def test_of_many_groups_only_the_base_is_unfolded():
    noises, taus = (0.1, 0.2, 0.3, 0.5), (0.05, 0.1, 0.2, 0.4)
    runs = [r for noise in noises for r in four(noise=noise, tau=0.2)]
    runs += [r for tau in taus if tau != 0.2 for r in four(noise=0.3, tau=tau)]
    runs += four(task="inpainting", noise=0.3, tau=0.2)
    found = groups.grouped(runs)
    assert [g.title for g in found if g.base] == [
        "Denoising, noise 0.3, τ 0.2",
        "Inpainting, noise 0.3, τ 0.2",
    ]
    html = figures.losses(found)
    before, _, after = html.partition("<details>")
    assert (before.count("<h4>"), after.count("<h4>")) == (2, 6)
    assert "<details>" not in figures.losses(found[:3])


def test_pairs_differ_in_the_mode_alone():
    runs = four()
    found = groups.pairs(runs)
    assert [(a["settings"]["fidelity"], b["settings"]["fidelity"]) for a, b in found] == [
        ("paper", "ours")
    ] * 2
    assert all(a["settings"]["model"] == b["settings"]["model"] for a, b in found)
    assert groups.pairs([runs[0], runs[3]]) == []
    assert tables.costs([runs[0], runs[3]], runs) == ""


def decoded(attrs):
    content = base64.b64decode(attrs["src"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def test_the_pictures_of_filters_are_of_the_same_filters_on_one_scale():
    run = made_up_run(model="equilibrium")
    count = panels.FILTERS + 3
    a = np.zeros((count, 3, 3, 1))
    a[:, 1, 1, 0] = np.random.default_rng(0).permutation(np.linspace(0.1, 1.0, count))
    c = 0.5 * a
    c[int(a[:, 1, 1, 0].argmin())] = 100.0  # not shown, so not on the scale
    html = panels.filters(groups.grouped([run]), {run["id"]: {"filters": {"A": a, "C": c}}})
    page = Page(html)
    grids = [decoded(attrs) for attrs in page.all("img")]
    assert len(grids) == 3
    drawn = np.sort(a[:, 1, 1, 0])[::-1][: panels.FILTERS]
    for grid, factor in zip(grids, (1.0, 0.5, -0.5), strict=True):
        centres = grid[1::4, 1::4, 0].ravel()[: panels.FILTERS]
        np.testing.assert_allclose(centres, 255 * (0.5 + 0.5 * factor * drawn), atol=1.5)
    ratio = np.linalg.norm(c - a) / np.linalg.norm(a)
    assert f"‖C − A‖ / ‖A‖ = {ratio:.3g}" in page.words
    assert f"{panels.FILTERS} of {count} filters" in page.words


def test_a_bilevel_run_has_one_grid_and_filters_of_other_shapes_have_no_difference():
    runs = four()
    pictures = {run["id"]: made_up_pictures(run) for run in runs}
    assert len(Page(panels.filters(groups.grouped(runs), pictures)).all("img")) == 1 + 1 + 3 + 3
    pictures = {
        runs[2]["id"]: {"filters": {"A": np.ones((2, 3, 3, 1)), "C": np.ones((4, 3, 3, 1))}}
    }
    assert len(Page(panels.filters(groups.grouped(runs), pictures)).all("img")) == 2


def test_reconstructions_stand_in_one_order_with_their_errors():
    runs = four()
    pictures = {run["id"]: made_up_pictures(run, count=panels.ROWS + 1) for run in runs}
    for number, run in enumerate(runs):
        pictures[run["id"]]["estimate"] = pictures[run["id"]]["truth"] + 0.1 * (number + 1)
    page = Page(panels.reconstructions(groups.grouped(runs), pictures))
    assert len(page.all("img")) == 6 * panels.ROWS
    captions = [attrs["data-caption"] for attrs in page.all("img")][:6]
    assert [c.partition(", MSE")[0] for c in captions] == [
        *("Truth", "Measurement", "Bilevel, ours", "Equilibrium, ours"),
        *("Bilevel, paper", "Equilibrium, paper"),
    ]
    assert [c.partition("MSE ")[2] for c in captions[2:]] == ["0.0400", "0.160", "0.0100", "0.0900"]
    assert f"The first {panels.ROWS} of {panels.ROWS + 1} test images." in page.words


def test_runs_may_lack_pictures_or_parts_of_them(tmp_path):
    results = made_up({}, {"noise": 0.25})
    results["runs"] = [results["runs"][number] for number in (0, 5, 6)]
    pictures = pictures_of(results)
    some = list(pictures)[1:]  # of the second group alone
    page = written(tmp_path, results, {key: pictures[key] for key in some})
    assert {"pictures", "filters"} <= set(sections(page))
    del pictures[some[0]]["measurement"], pictures[some[0]]["estimate"]
    pictures[some[1]] = {}
    written(tmp_path, results, {key: pictures[key] for key in some})
    page = written(tmp_path, results, {key: {} for key in some})
    assert not {"pictures", "filters"} & set(sections(page))


@pytest.mark.slow
def test_sixty_runs_stay_small(tmp_path):
    points = [{"noise": n, "tau": t} for n in (0.1, 0.2, 0.5) for t in (0.1, 0.2, 0.3, 0.4, 0.5)]
    results = made_up(*points)
    assert len(results["runs"]) == 60
    page = written(tmp_path, results, pictures_of(results, side=64, filters=40))
    assert len(page.all("svg")) > 60


def test_the_same_numbers_give_the_same_page(tmp_path):
    results = made_up()
    first = written(tmp_path, results, pictures_of(results)).source
    assert written(tmp_path, results, pictures_of(results)).source == first
