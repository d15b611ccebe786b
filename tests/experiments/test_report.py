"""The report: one HTML file, complete in itself, and honest in words."""

import base64
import copy
import io
import itertools
import math
import textwrap

import matplotlib
import numpy as np
import pytest
from PIL import Image

from deq_keras.plot import pictures
from experiments.report import images, plots, verdict, write_report
from experiments.report.text import decimals, duration, percent, significant, tick
from tests.experiments.html_page import Page

METHODS = ("measurement", "total_variation", "bilevel", "equilibrium")
EVIL = '<script>alert("1")</script>'


def fabricated_method(psnr, names, **values):
    """Numbers that no method has produced."""
    entries = [dict(name=n, psnr=psnr, ssim=0.8, steps=9, residual=1e-5) for n in names]
    return {
        **dict(label=None, psnr=psnr, ssim=0.8, train_loss=1e-3, test_loss=2e-3, seconds=1.0),
        **dict(solve_seconds=0.1, forward_steps=12.5, backward_steps=None, converged=1.0),
        **dict(parameters=1234, images=[dict(e, converged=True) for e in entries]),
        **values,
    }


def fabricated(tasks=("denoising",), names=("one", "two"), channels=1, size=(20, 28), filters=5):
    """Results and pictures from random numbers."""
    rng = np.random.default_rng(0)
    steps = list(range(6))
    losses = [0.1 / (s + 1) for s in steps]
    further = dict(step=[5, 6, 7], loss=[0.02, float("nan"), 0.01], val_psnr=[20.0, None, 21.0])
    curves = dict(
        training=dict(
            bilevel=dict(step=steps, loss=losses),
            bilevel_further=further,
            equilibrium=further,
        ),
        residual={m: [0.5**i for i in range(9)] for m in METHODS[1:]},
        psnr_time={m: dict(seconds=[0.0, 0.1, 0.2], psnr=[20, 25, 26]) for m in METHODS[1:]},
    )
    scores = zip(METHODS, (20.0, 27.0, 28.0, 28.5), strict=True)
    task = dict(
        title="Denoising",
        description="Noise of 0.1.",
        methods={m: fabricated_method(p, names) for m, p in scores},
        curves=curves,
        details=dict(learned_weight=0.125),
    )
    results = dict(
        created="2025-01-31T12:00:00Z",
        command="python -m experiments.compare --config=here.py",
        seed=0,
        seconds=12.0,
        versions=dict(deq_keras="0", python="3"),
        machine=dict(cpus=2, devices=["CPU:0"]),
        config=dict(model=dict(filters=filters)),
        data=dict(source="invented", train=["a", "b"], validation=["c"], test=list(names)),
        tasks={t: copy.deepcopy(task) for t in tasks},
    )

    def random_pictures():
        entry = {m: rng.random((len(names), *size, channels)) for m in ("truth", *METHODS)}
        kernels = ("bilevel", "equilibrium_analysis", "equilibrium_synthesis")
        shape = (3, 3, channels, filters)
        return {
            **{m: list(p) for m, p in entry.items()},
            "names": list(names),
            "filters": {k: rng.standard_normal(shape) for k in kernels},
        }

    return results, {t: random_pictures() for t in tasks}


def written(folder, results, pictures):
    path = write_report(folder / "report.html", results, pictures)
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    assert path.stat().st_size < 6e6
    return Page(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(tasks=("denoising", "inpainting", "deconvolution"), channels=3, names=("a", "b", "c")),
        dict(names=("only",), size=(16, 16), filters=1),
        dict(size=(1, 7)),
    ],
)
def test_the_page_is_complete_in_itself(tmp_path, options):
    page = written(tmp_path, *fabricated(**options))
    tasks = len(options.get("tasks", ("one",)))
    rows = tasks * len(options.get("names", ("one", "two")))
    # Truth and four methods, whole and in detail; four error maps; three grids of filters.
    assert len(page.all("img")) == rows * (5 + 5 + 4) + tasks * 3
    assert len(page.all("svg")) >= 4 * tasks
    page.check_complete()


def test_the_page_holds_what_was_measured(tmp_path):
    results, pictures = fabricated()
    page = written(tmp_path, results, pictures)
    task = results["tasks"]["denoising"]
    for text in (
        verdict(task),
        task["description"],
        results["command"],
        "Learned weight 0.125",
        "28.50 dB",
        "SSIM 0.800",
        "31 January 2025",
        "a, b (2)",
        '"filters": 5',
        "CPU:0",
        "training losses end at 10.0 and 10.0 × 10⁻³",
    ):
        assert " ".join(text.split()) in page.words
    assert page.source.count("<strong>28.50</strong>") == 1 + 1 + len(
        pictures["denoising"]["truth"]
    )


def test_text_is_escaped(tmp_path):
    results, pictures = fabricated(names=(EVIL, "two"))
    task = results["tasks"]["denoising"]
    task.update(title=EVIL, description=EVIL, details={EVIL: EVIL})
    results.update(
        command=EVIL, created=EVIL, seed=EVIL, config={EVIL: EVIL}, versions={EVIL: EVIL}
    )
    results["machine"]["devices"] = results["data"]["train"] = [EVIL]
    for method in METHODS:
        task["methods"][method]["label"] = EVIL
    page = written(tmp_path, results, pictures)
    assert len(page.all("script")) == 1  # the page's own
    assert EVIL not in page.source
    assert page.words.count("alert") >= 15


def test_what_is_missing_is_a_dash(tmp_path):
    results, pictures = fabricated(names=("one",))
    task = results["tasks"]["denoising"]
    for key in task["methods"]["equilibrium"]:
        task["methods"]["equilibrium"][key] = None
    task["methods"]["bilevel"].update(psnr=float("nan"), images=[dict(name="one", psnr=math.nan)])
    del task["methods"]["total_variation"]
    task["curves"]["residual"] = dict(bilevel=[float("nan"), None], equilibrium=[])
    pictures["denoising"]["bilevel"][0][0, 0] = np.nan
    page = written(tmp_path, results, pictures)
    assert "– dB" in page.words
    assert "Residual of the solver" not in page.words
    assert "nan" not in page.words.lower()


@pytest.mark.parametrize(
    "keep", [(), ("title",), ("methods",), ("methods", "curves"), ("methods", "description")]
)
def test_parts_of_a_task_may_be_absent(tmp_path, keep):
    results, _ = fabricated()
    task = results["tasks"]["denoising"]
    results = {"tasks": {"denoising": {key: task[key] for key in keep}}}
    written(tmp_path, results, {})
    written(tmp_path, results, {"denoising": {"truth": [np.zeros((8, 8))]}})
    written(tmp_path, {"tasks": {}}, {})


def test_a_measurement_of_another_shape_has_no_detail_and_no_error(tmp_path):
    results, pictures = fabricated(names=("one",))
    pictures["denoising"]["measurement"] = [np.zeros((9, 9, 1))]
    page = written(tmp_path, results, pictures)
    assert len(page.all("img")) == 5 + 4 + 3 + 3


def test_mistakes_say_how_to_mend_them(tmp_path):
    results, pictures = fabricated()
    with pytest.raises(ValueError, match=r"'tasks'.*\['seed'\].*results\.json"):
        write_report(tmp_path / "report.html", {"seed": 0}, pictures)
    with pytest.raises(ValueError, match="Received also.*'other'"):
        write_report(tmp_path / "report.html", results, {"other": {}})
    pictures["denoising"]["truth"] = [np.zeros((1, 8, 8, 1))]
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 1\): remove the batch axis"):
        write_report(tmp_path / "report.html", results, pictures)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    results, pictures = fabricated(names=("one",))
    (tmp_path / "report.html").write_text("old")

    def broken(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", broken)
        with pytest.raises(OSError, match="no space"):
            write_report(tmp_path / "report.html", results, pictures)
    assert (tmp_path / "report.html").read_text() == "old"
    page = written(tmp_path, results, pictures)
    again = write_report(tmp_path / "report.html", results, pictures).read_text("utf-8")
    assert again == page.source  # the same numbers give the same page


def test_nothing_is_left_behind_in_matplotlib(tmp_path):
    before = dict(matplotlib.rcParams)
    written(tmp_path, *fabricated())
    assert dict(matplotlib.rcParams) == before


def scored(tv=27.5, bilevel=28.0, equilibrium=28.5, measurement=20.0, **more):
    """A task with these mean PSNRs; `bilevel__train_loss=1` sets another value of a method."""
    scores = (measurement, tv, bilevel, equilibrium)
    methods = {m: dict(psnr=p) for m, p in zip(METHODS, scores, strict=True)}
    for key, value in more.items():
        method, _, name = key.partition("__")
        methods[method][name] = value
    return {"methods": methods}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (scored(), "The equilibrium model wins with 28.50 dB, 0.50 dB ahead of the bilevel"),
        (scored(), "regulariser and 1.00 dB ahead of total variation."),
        (scored(), "The measurement is 8.50 dB below."),
        (
            scored(equilibrium=28.04),
            "equilibrium model and the bilevel regulariser tie at 28.04 dB",
        ),
        (scored(equilibrium=28.04), "apart), 0.54 dB ahead of total variation."),
        (scored(28.35, 28.3, 28.40), "The equilibrium model wins with 28.40 dB, 0.05 dB ahead"),
        (scored(28.36, 28.3, 28.40), "The equilibrium model and total variation tie at 28.40 dB"),
        (scored(28.0, 28.0, 28.0), "regulariser and the equilibrium model tie at 28.00 dB"),
        (scored(28.0, 27.7, 27.0), "Total variation wins with 28.00 dB"),
        (scored(28.0, 27.7, 27.0), "not pay here: the bilevel regulariser is 0.30 dB below total"),
        (scored(28.0, 27.7, 27.0), "from the bilevel model cost 0.70 dB on the test images."),
        (scored(measurement=28.48), "That is no better than the measurement itself."),
        (scored(measurement=30.0), "That is 1.50 dB worse than the measurement itself."),
        (scored(equilibrium=None), "There is no PSNR for the equilibrium model."),
        (scored(math.nan, 28.0, math.nan), "The bilevel regulariser alone has a result: 28.00 dB."),
        (scored(*[math.nan] * 3), "No method has a finite PSNR, so there is nothing to rank."),
        ({}, "No method has a finite PSNR"),
        (
            scored(equilibrium=27.6, equilibrium__train_loss=1e-3, bilevel__train_loss=1.5e-3),
            "cost 0.40 dB on the test images, although it fits the training images better "
            "(1 against 1.5 × 10⁻³): over-fitting.",
        ),
        (
            scored(equilibrium=27.6, equilibrium__train_loss=2e-3, bilevel__train_loss=1.5e-3),
            "its training loss is no lower either (2 against 1.5 × 10⁻³), so this is not",
        ),
        (
            scored(
                equilibrium=28.0,
                equilibrium__train_loss=1e-3,
                equilibrium__test_loss=2e-3,
                bilevel__train_loss=1.5e-3,
                bilevel__test_loss=1.8e-3,
            ),
            "The equilibrium model has a higher test loss than the bilevel regulariser, although",
        ),
        (
            scored(28.0, 27.7, bilevel__train_loss=1e-3, total_variation__train_loss=2e-3),
            "below total variation, although it fits the training images better",
        ),
        (scored(bilevel__converged=0.5), "the bilevel regulariser on 50 % of the test images"),
        (
            scored(
                bilevel__converged=0.0,
                bilevel__images=[dict(converged=False)] * 2,
                equilibrium__converged=0.5,
                equilibrium__images=[dict(converged=False), dict(converged=True)],
            ),
            "Not everything converged: the bilevel regulariser on all 2 test images and the "
            "equilibrium model on 1 of 2 test images did not reach the tolerance; their numbers",
        ),
        (
            scored(bilevel__converged=0.0, bilevel__images=[dict(converged=False)]),
            "the bilevel regulariser on the test image did not reach the tolerance; its numbers",
        ),
        (
            scored(bilevel__ssim=0.9, equilibrium__ssim=0.85),
            "By SSIM, the bilevel regulariser is ahead instead (0.900 against 0.850).",
        ),
        (
            scored(
                **{
                    f"{m}__images": [dict(psnr=a), dict(psnr=b), dict(psnr=c)]
                    for m, (a, b, c) in zip(
                        METHODS[1:], ((1, 2, 9), (2, 3, 4), (3, 4, 5)), strict=True
                    )
                }
            ),
            "it is ahead on 2 of the 3 test images.",
        ),
    ],
)
def test_verdict_says(task, said):
    assert said in verdict(task)


@pytest.mark.parametrize(
    ("task", "unsaid"),
    [
        (scored(), "over-fitting"),
        (scored(), "converge"),
        (scored(), "SSIM"),
        (scored(bilevel__converged=1.0), "converge"),
        (scored(equilibrium=28.04), "wins"),
        (scored(equilibrium=27.96, equilibrium__train_loss=1, bilevel__train_loss=2), "fitting"),
        (scored(bilevel__ssim=0.853, equilibrium__ssim=0.85), "SSIM"),
        (scored(equilibrium=None), "equilibrium model has"),
    ],
)
def test_verdict_does_not_say(task, unsaid):
    assert unsaid not in verdict(task)


def test_verdict_example():
    """That of its docstring."""
    code, _, printed = verdict.__doc__.partition("Example:")[2].partition("70))\n")
    scores = {"total_variation": 27.5, "bilevel": 28.0, "equilibrium": 28.02}
    assert str(scores).replace("'", '"') in code
    text = verdict({"methods": {m: {"psnr": psnr} for m, psnr in scores.items()}})
    assert textwrap.fill(text, 70) == textwrap.dedent(printed).strip()


def test_every_combination_of_missing_scores_has_a_verdict():
    for scores in itertools.product((None, math.nan, math.inf, 28.0, 28.01), repeat=4):
        text = verdict(scored(*scores))
        assert text.endswith(".")
        assert "nan" not in text
        assert "inf" not in text.replace("finite", "")


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_exact(channels):
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, channels))
    shown = decoded(images.file_bytes(levels / 255))
    np.testing.assert_array_equal(shown.reshape(levels.shape), levels)
    content = images.file_bytes(levels / 255)
    assert base64.b64decode(images.uri(content).partition(",")[2]) == content


def test_large_pictures_fit_the_budget():
    rng = np.random.default_rng(0)
    noise = [rng.random((200, 260, 3)) for _ in range(3)]
    maps = [(n.mean(-1), 1.0) for n in noise]
    sizes = []
    for budget in (10_000_000, 600_000, 200_000):
        photographs, errors, rung = images.fitting(noise, maps, budget)
        assert sum(map(len, photographs + errors)) <= budget
        assert len(photographs) == len(errors) == 3
        sizes.append(rung)
    assert sizes == sorted(sizes, key=images.LADDER.index)
    assert sizes[0] == (None, None)
    assert sizes[-1][0] < 200
    assert max(decoded(photographs[0]).shape) == sizes[-1][0]


def test_shrinking_keeps_the_mean():
    picture = np.random.default_rng(0).random((64, 32, 3))
    small = images.shrink(picture, 16)
    assert small.shape == (16, 8, 3)
    blocks = picture.reshape(16, 4, 8, 4, 3).mean((1, 3))
    np.testing.assert_allclose(small, blocks, atol=1e-6)
    assert images.shrink(picture, 64) is picture


def test_errors_are_distances_to_the_truth():
    truth, estimate = np.zeros((2, 2, 3)), np.zeros((2, 2, 3))
    estimate[0, 1] = (0.3, 0.0, 0.6)
    found = pictures.error(estimate, truth)
    np.testing.assert_allclose(found, [[0, 0.3], [0, 0]], atol=1e-15)
    low, high = (images.coloured(np.array([[v]]), 0.5)[0, 0].astype(int).sum() for v in (0, 0.5))
    assert low < high
    beyond = images.coloured(np.array([[0.9]]), 0.5)
    np.testing.assert_array_equal(beyond, images.coloured(np.array([[0.5]]), 0.5))


def test_filters_are_tiles_on_symmetric_scales():
    kernel = np.zeros((3, 3, 1, 3))
    kernel[0, 0, 0] = (1.0, -5.0, 0.0)
    kernel[2, 2, 0] = (-1.0, 5.0, 0.0)
    assert np.argsort(-pictures.filter_norms(kernel)).tolist() == [1, 0, 2]
    grid = images.filter_grid(kernel, [1, 0, 2], columns=2)
    assert grid.shape == (7, 7, 4)
    negative, positive = grid[0, 0, :3].astype(int), grid[2, 2, :3].astype(int)
    assert negative[2] > negative[0]  # blue
    assert positive[0] > positive[2]  # red
    # The scale is each filter's own, and zero is the middle of it.
    np.testing.assert_array_equal(grid[0, 4], grid[2, 2])
    np.testing.assert_array_equal(grid[4:7, 0:3], np.broadcast_to(grid[1, 1], (3, 3, 4)))
    assert (grid[..., 3] == 0).sum() == 7 + 7 - 1 + 3 * 3


def test_a_curve_may_have_gaps_and_one_without_points_is_not_drawn():
    nothing = {"bilevel": ([1, 2], [None, math.nan]), "equilibrium": ([], [])}
    assert plots.plot("p", "title", nothing, "x", "y") == ""
    assert plots.plot("p", "title", {"bilevel": (None, [0.0, -1.0])}, "x", "y", log_y=True) == ""
    with_gap = {"bilevel": ([1, 2, 3], [1.0, None, 2.0])}
    assert plots.plot("p", EVIL, with_gap, "x", "y").count("<script") == 0


@pytest.mark.parametrize("count", [1, 2, 121, 5000])
@pytest.mark.parametrize("log_y", [True, False])
def test_curves_of_any_length_are_drawn_and_stay_small(count, log_y):
    curves = {m: (None, np.linspace(1, 2, count).tolist()) for m in ("bilevel", "equilibrium")}
    svg = plots.plot("p", "title", curves, "x", "y", log_y=log_y, fork=count // 2)
    Page(svg)
    assert "var(--bilevel)" in svg
    assert "var(--equilibrium)" in svg
    assert len(svg) < 150_000


def test_smoothing_is_the_running_median():
    y = np.random.default_rng(0).random(250)
    smooth = plots._smooth(y)
    assert smooth.shape == y.shape
    np.testing.assert_allclose(smooth[100], np.median(y[90:111]))
    np.testing.assert_allclose(smooth[0], np.median(y[:11]))


@pytest.mark.parametrize(("low", "high"), [(1e-12, 1), (0.0011, 0.0019), (3, 3.05), (1, 1e5)])
def test_logarithmic_axes_have_a_few_ticks(low, high):
    ticks = plots._log_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= t <= high for t in ticks)


def test_numbers():
    assert decimals(-1.234) == "−1.23"
    assert [decimals(v) for v in (None, math.nan, math.inf, "x")] == ["–"] * 4
    assert [significant(v) for v in (0, 1.0, 0.01234, 123.456, 1e-5)] == [
        *("0", "1.00", "0.0123", "123", "1.00×10⁻⁵")
    ]
    assert [tick(v) for v in (0.02, 1e-5, 2e-5, -3.0)] == ["0.02", "10⁻⁵", "2×10⁻⁵", "−3"]
    assert [percent(v) for v in (None, 0.0, 0.999, 1.0)] == ["–", "0 %", "99 %", "100 %"]
    assert [duration(v) for v in (None, 0.01, 30, 600, 9000)] == [
        *("–", "10.0 ms", "30.0 s", "10.0 min", "2.50 h")
    ]
