from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MplFigure

from harness.methods import methods
from harness.phases import Phase
from harness.reports import costs, figures
from harness.reports.figures.pareto import ParetoFigure
from harness.reports.figures.powers import PowersFigure, exponents
from harness.reports.figures.style import COLORS, DARK, DARK_PAGE, GREY, Palette, style, with_dark_colors
from harness.reports.grid import requested
from harness.reports.results import Results

from .conftest import Build, edit

every_figure = pytest.mark.parametrize("name", figures.figures.entries)


def names(build: Build, **arguments: object) -> dict[str, list[str]]:
    drawings = figures.draw(build(**arguments))
    return {section: [drawing.name for drawing in group] for section, group in drawings.items()}


def complete(build: Build) -> Results:
    """Results with the data that every figure needs."""
    results = build(methods=("ce", "imp", "dimp", "power(a=0.5)"), fractions=(0.1, 1.0), seeds=(0, 1), rows=30)
    corruption = results.weights["corruption"].where(results.weights.index % 3 > 0, "flip")
    uses_checkers = results.weights["method"] == "imp"
    scores = {"quality": np.where(uses_checkers, 0.6, np.nan), "diversity": np.where(uses_checkers, 0.8, np.nan)}
    return replace(results, weights=results.weights.assign(corruption=corruption, **scores))


def test_a_plain_grid_has_a_drawing_for_each_subject(build: Build) -> None:
    drawn = names(build)
    for section, name in (
        ("Accuracy", "accuracy"), ("Training dynamics", "dynamics_generated"), ("Cost", "cost"), ("Weights", "weights"),
    ):  # fmt: skip
        assert name in drawn[section]


def test_every_module_that_defines_a_figure_is_discovered() -> None:
    folder = Path(figures.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "(ReportFigure):" in path.read_text(encoding="utf-8")}
    assert {figure.__module__.rpartition(".")[2] for figure in figures.figures.entries.values()} == modules


@every_figure
def test_a_figure_has_a_section_and_draws_nothing_without_data(name: str, build: Build) -> None:
    figure, results = figures.figures.get(name), build(seeds=(0,))
    empty = Results(results.trials.iloc[:0], results.epochs.iloc[:0], results.weights.iloc[:0], results.meta)
    assert figure.section
    assert figure().draw(empty, Palette([])) == []


@every_figure
def test_a_figure_draws_complete_results(name: str, build: Build) -> None:
    drawings = figures.figures.get(name)().draw(complete(build), Palette(["ce", "imp", "dimp"]))
    assert drawings
    for drawing in drawings:
        assert drawing.name.startswith(name)
        assert drawing.title
        assert drawing.caption.endswith(".")
        assert drawing.svg.startswith(b"<?xml")


def test_a_figure_of_another_package_has_its_place(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(figures.ReportFigure):
        name = "toy"
        section = "Toys"

        def draw(self, results: Results, palette: Palette) -> list[figures.Drawing]:
            return [figures.Drawing("toy", "A toy", "A caption.", MplFigure())]

    monkeypatch.setitem(figures.figures.entries, "toy", Toy)
    assert names(build, seeds=(0,))["Toys"] == ["toy"]


def test_a_method_has_the_same_color_in_every_report(build: Build) -> None:
    """The color depends on the name alone: neither on the other methods of the report nor on their order."""
    few = Palette(key.method for key in requested(build(methods=("ce", "dimp"), seeds=(0,)).trials))
    many = Palette(["foreign", "imp(clip=5.0)", "filter", "imp", "dimp", "ce"])
    assert few.color("dimp") == many.color("dimp")
    assert few.marker("dimp") == many.marker("dimp")
    assert many.color("foreign") == Palette(["foreign"]).color("foreign")
    assert many.color("imp(clip=5.0)") == many.color("imp") != many.color("dimp")
    assert {palette.color(label) for palette in (few, many) for label in ("ce", "ce(a=1)")} == {GREY}


def test_as_many_methods_as_there_are_colors_do_not_share_one() -> None:
    names = list(methods.entries)[: len(COLORS)]
    assert len({Palette([]).color(name) for name in names}) == len(names)


def test_drawn_lines_have_the_color_of_their_method(build: Build) -> None:
    """In reports with different grids."""
    colors = set()
    for labels in (("ce", "dimp"), ("ce", "focal", "filter", "dimp")):
        (dynamics,) = figures.draw(build(methods=labels, seeds=(0,)))["Training dynamics"]
        colors |= {line.get_color() for line in dynamics.figure.axes[0].lines if line.get_label() == "dimp"}
    assert colors == {Palette([]).color("dimp")}


@pytest.mark.parametrize("reverse", [False, True])
def test_methods_of_a_report_never_share_color_and_marker(reverse: bool) -> None:
    labels = [*methods.entries, *(f"imp(clip={i}.0)" for i in range(20)), *(f"foreign{i}" for i in range(40))]
    labels.remove("ce")
    palette = Palette(reversed(labels) if reverse else labels)
    looks = {label: (palette.color(label), palette.marker(label)) for label in labels}
    assert len(set(looks.values())) == len(labels)
    assert looks == {label: (p.color(label), p.marker(label)) for p in [Palette(labels)] for label in labels}


def test_a_crowd_gets_small_multiples_for_each_benchmark(build: Build) -> None:
    crowd = ("ce", "focal", "imp", "imp_quality", "dimp", "filter")
    drawn = figures.draw(build(methods=crowd, benchmarks=("news", "irony"), seeds=(0,), rows=20))["Training dynamics"]
    assert [d.name for d in drawn] == ["dynamics_generated_news", "dynamics_generated_irony"]
    assert [ax.get_title(loc="left") for ax in drawn[0].figure.axes] == list(crowd[1:])
    assert all(len(ax.lines) == 2 for ax in drawn[0].figure.axes)  # the method and CE


def test_fractions_need_two(build: Build) -> None:
    assert names(build, fractions=(0.1, 1.0), methods=("ce", "dimp"), seeds=(0,))["How many real rows"] == ["fractions"]


def test_mixed_rows_are_drawn_beside_real_rows_alone(build: Build) -> None:
    results = build(methods=("ce",), seeds=(0, 1), sources=("real_small", "both"))
    quarter = results.trials.assign(
        fraction=0.25, test_accuracy=0.5, trial=[f"quarter-{id_}" for id_ in results.trials["trial"]]
    )
    whole = results.trials.assign(fraction=1.0)
    (drawing,) = figures.draw(replace(results, trials=pd.concat([quarter, whole])))["How many real rows"]
    lines = {str(line.get_label()): line for line in drawing.figure.axes[0].lines}
    assert list(lines) == ["both, ce", "real rows alone, ce"]
    for line in lines.values():
        assert line.get_xdata() == pytest.approx([0.25, 1.0])
        assert np.asarray(line.get_ydata())[0] == 50.0


def test_the_map_of_powers_has_the_gain_over_ce_at_every_point(build: Build) -> None:
    methods_ = ("ce", "dimp", "gce(q=0.7)", "power(a=0.5)", "power(b=1.0)")
    results = build(methods=methods_, seeds=(0, 1))
    for accuracy, method in zip((0.6, 0.62, 0.59, 0.57, 0.605), methods_, strict=True):
        results = edit(results, results.trials["method"] == method, test_accuracy=accuracy)
    (drawing,) = PowersFigure().draw(results, Palette(methods_))
    (ax,) = drawing.figure.axes
    texts = {(text.get_position()[0], round(text.get_position()[1])): text.get_text() for text in ax.texts[::-1]}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.5", "1"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["−1", "0", "0.7", "1"]
    assert texts == {(0, 1): "+0.0", (2, 0): "+2.0", (0, 2): "−1.0", (1, 1): "−3.0", (0, 3): "+0.5"}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ce", (0, 0)), ("imp_quality", (1, 0)), ("dimp", (1, -1)), ("power", (0, 0)),
        ("power(a=0.5, b=-1)", (0.5, -1)),
        ("dimp(clip=5.0)", None), ("gce", (0, 0.7)), ("gce(q=0.2)", (0, 0.2)), ("power(a=1, lag=1)", None),
    ],
)  # fmt: skip
def test_exponents_of_a_label(label: str, expected: tuple[float, float] | None) -> None:
    assert exponents(label) == expected


def test_one_epoch_has_no_dynamics(build: Build) -> None:
    assert names(build, epochs=1, seeds=(0,)).get("Training dynamics") is None


def test_bars_start_at_zero_and_add_up_to_the_stand_alone_cost(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0,))
    (drawing,) = [drawing for drawing in figures.draw(results)["Cost"] if drawing.name == "cost"]
    (ax,) = drawing.figure.axes
    dimp = results.trials[results.trials["method"] == "dimp"].iloc[0]
    checker = results.trials.set_index("trial").loc[dimp["quality_checker"]]
    phases = ["seconds_load", "seconds_tokenize", "seconds_train"]
    expected = dimp[phases].sum() + checker[phases].sum() + checker["seconds_score"]
    assert ax.get_xlim()[0] == 0
    assert max(bar.get_x() + bar.get_width() for bar in ax.patches) == pytest.approx(expected)


def test_corrupted_rows_are_mirrored(build: Build) -> None:
    results = build(methods=("ce", "dimp", "filter"), seeds=(0, 1), rows=30)
    assert [drawing.name for drawing in figures.draw(results)["Weights"]] == ["weights"]
    corruptions = results.weights["corruption"].where(results.weights.index % 3 > 0, "flip")
    corrupted = Results(results.trials, results.epochs, results.weights.assign(corruption=corruptions), results.meta)
    _, drawing = figures.draw(corrupted)["Weights"]
    assert drawing.name == "corrupted"
    (ax,) = drawing.figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dimp", "filter"]
    for row, steps in enumerate((ax.patches[:2], ax.patches[2:])):
        above, below = (patch.get_data().values for patch in steps)
        assert above.min() < row == above.max()
        assert below.max() > row == below.min()


def test_drawing_leaves_the_style_alone_and_svg_is_stable(build: Build) -> None:
    before = dict(mpl.rcParams)
    first, second = (figures.draw(build(seeds=(0,)))["Weights"][0].svg for _ in range(2))
    assert dict(mpl.rcParams) == before
    assert first == second


def test_sources_with_the_same_method_have_rows_of_their_own(build: Build) -> None:
    results = complete(build)
    noisy = results.weights[results.weights["source"] == "generated"].assign(source="noisy")
    both = replace(results, weights=pd.concat([results.weights, noisy], ignore_index=True))
    drawing = figures.draw(both)["Weights"][1]
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert labels == ["generated: imp", "generated: dimp", "noisy: imp", "noisy: dimp"]


def test_every_phase_can_be_drawn_and_keeps_its_color(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0,))
    charged = set(Phase) - {Phase.LOAD, Phase.TOKENIZE, Phase.SCORE, *costs.NOT_CHARGED}

    def colors(trials: pd.DataFrame) -> dict[str, object]:
        drawn = figures.draw(replace(results, trials=trials))["Cost"]
        (drawing,) = [drawing for drawing in drawn if drawing.name == "cost"]
        legend = drawing.figure.legends[0]
        texts = [text.get_text() for text in legend.get_texts()]
        return dict(zip(texts, [patch.get_facecolor() for patch in legend.get_patches()], strict=True))

    every = colors(results.trials.assign(**{phase.key: 1.0 for phase in charged}))
    assert {phase.label for phase in charged} <= every.keys()
    assert len(set(every.values())) == len(every)
    assert colors(results.trials).items() <= every.items()


def test_reports_load_no_heavy_package() -> None:
    """scikit-learn and SciPy are loaded when a report is written, the others never."""
    unwanted = ("torch", "ray", "transformers", "mlflow", "matplotlib.pyplot", "sklearn", "scipy",
                "harness.training", "harness.planning.plan")  # fmt: skip
    code = (
        "import sys, harness.reports.page, harness.reports.load;"
        "[figure for figure in harness.reports.figures.figures.entries];"
        f"print([name for name in {unwanted!r} if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_a_method_without_results_is_in_no_legend(build: Build) -> None:
    results = build(fractions=(0.1, 1.0), methods=("ce", "imp", "dimp"), seeds=(0,))
    results = edit(results, results.trials["method"] == "imp", status="missing")
    (drawing,) = figures.draw(results)["How many real rows"]
    labels = {text.get_text() for text in drawing.figure.legends[0].get_texts()}
    assert labels == {"dimp", "quality checker itself", "ce (needs no real rows)"}


def test_unfinished_trials_are_counted_beside_the_axis(build: Build) -> None:
    results = build(seeds=(0, 1))
    results = edit(results, (results.trials["method"] == "dimp") & (results.trials["seed"] == 0), status="failed")
    drawing = figures.draw(results)["Accuracy"][0]
    (note,) = drawing.figure.axes[0].texts
    assert note.get_text() == "1 failed"
    assert note.get_position()[0] > 1, "in shares of the axis: dots cannot cover it"


# -- accuracy against cost -------------------------------------------------------------------------------------------


def pareto(results: Results) -> MplFigure:
    with style():
        (drawing,) = ParetoFigure().draw(results, Palette(key.method for key in requested(results.trials)))
    return drawing.figure


def test_the_front_joins_the_means_that_no_other_cell_beats(build: Build) -> None:
    """CE is cheapest, IMP costs most and is worse than DIMP: the front is CE, then DIMP."""
    results = build(methods=("ce", "imp", "dimp"), sources=("generated",), seeds=(0, 1))
    scores = {"ce": 0.70, "imp": 0.72, "dimp": 0.74}
    trials = results.trials.assign(
        test_accuracy=results.trials["method"].map(scores), seconds_train=60.0, seconds_load=0.0, seconds_tokenize=0.0
    )
    figure = pareto(replace(results, trials=trials))
    (ax,) = figure.axes
    (front,) = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_drawstyle() == "steps-post"]
    # the quality checker on the real rows costs 60 s and 6 s of scoring
    assert list(front.get_xdata()) == pytest.approx([60.0, 126.0])
    assert list(front.get_ydata()) == pytest.approx([70.0, 74.0])
    assert {text.get_text(): text.get_fontweight() for text in ax.texts} == {
        "ce": "bold", "dimp": "bold", "imp": "normal",
    }  # fmt: skip


def test_labels_of_a_crowd_do_not_overlap_and_stay_inside_their_panel(build: Build) -> None:
    crowd = ("ce", "focal", "imp", "imp_quality", "dimp", "filter", "prior", "power(a=0.5,b=1.0)")
    results = build(methods=crowd, benchmarks=("news", "irony"), sources=("real_small", "generated"), seeds=(0, 1))
    figure = pareto(results)
    figure.draw_without_rendering()
    assert isinstance(figure.canvas, FigureCanvasAgg)
    for ax in figure.axes:
        extents = [text.get_window_extent(figure.canvas.get_renderer()) for text in ax.texts]
        assert len(extents) == len(crowd) + 1
        assert not [(a, b) for a, b in combinations(extents, 2) if a.overlaps(b)]
        frame = ax.get_window_extent().padded(2)
        assert all(frame.containsx(e.x0) and frame.containsx(e.x1) and frame.containsy(e.y1) for e in extents)


# -- light and dark --------------------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    """Relative luminance of a hex color, as the Web Content Accessibility Guidelines define it."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("light", [*COLORS, GREY])
def test_colors_are_readable_on_a_dark_page(light: str) -> None:
    contrast = (luminance(DARK[light]) + 0.05) / (luminance(DARK_PAGE) + 0.05)
    assert contrast > 4.5


def test_every_color_of_a_figure_has_a_dark_counterpart(build: Build) -> None:
    for drawings in figures.draw(complete(build)).values():
        for drawing in drawings:
            used = set(re.findall(rb"(?:fill|stroke): (#[0-9a-f]{6})[;\"]", drawing.svg))
            assert used <= {light.lower().encode() for light in DARK}, drawing.name


def test_dark_colors_are_added_as_a_style_sheet() -> None:
    svg = b'<svg>\n <defs>\n </defs>\n<path style="fill: #ffffff"/></svg>'
    assert with_dark_colors(svg) == (
        b"<svg>\n <defs>\n<style>@media (prefers-color-scheme: dark) {\n"
        b'[style*="fill: #ffffff"] { fill: #0d1117 !important }\n'
        b'[style*="stroke: #ffffff"] { stroke: #0d1117 !important }\n}</style>\n'
        b' </defs>\n<path style="fill: #ffffff"/></svg>'
    )
