from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from harness.reports import figures
from harness.reports.figures.style import Palette
from harness.reports.grid import requested
from harness.reports.results import Results

from .conftest import Build


def names(build: Build, **arguments: object) -> dict[str, list[str]]:
    return {kind: [d.name for d in drawn] for kind, drawn in figures.draw(build(**arguments)).items()}


def test_a_plain_grid_has_a_drawing_for_each_subject(build: Build) -> None:
    drawn = names(build)
    assert {section: found for section, found in drawn.items() if found} == {
        "Accuracy": ["accuracy"], "Training dynamics": ["dynamics_generated"], "Cost": ["cost"],
        "Weights": ["weights"],
    }  # fmt: skip


def test_every_module_of_the_folder_that_draws_is_a_figure() -> None:
    folder = Path(figures.__file__).parent
    drawing = {path.stem for path in folder.glob("*.py") if "def draw(" in path.read_text() and path.stem != "__init__"}
    assert set(figures.modules()) == drawing


@pytest.mark.parametrize("name", figures.modules())
def test_a_figure_has_a_section_and_draws_nothing_from_nothing(name: str, build: Build) -> None:
    module, results = figures.modules()[name], build(seeds=(0,))
    empty = Results(results.trials.iloc[:0], results.epochs.iloc[:0], results.weights.iloc[:0], results.meta)
    assert module.SECTION
    assert module.draw(empty, requested(empty.trials), Palette([])) == []


def test_a_method_has_the_same_color_in_every_report(build: Build) -> None:
    few = Palette(requested(build(methods=("ce", "dimp"), seeds=(0,)).trials))
    many = Palette(
        requested(build(methods=("ce", "focal", "imp(clip=5.0)", "filter", "imp", "dimp"), seeds=(0,)).trials)
    )
    assert few.color("dimp") == many.color("dimp")
    looks = [(many.color(m), many.marker(m)) for m in ("focal", "imp(clip=5.0)", "filter", "imp", "dimp")]
    assert len(set(looks)) == len(looks)


def test_a_crowd_gets_small_multiples_for_each_benchmark(build: Build) -> None:
    crowd = ("ce", "focal", "imp", "imp_quality", "dimp", "filter")
    drawn = figures.draw(build(methods=crowd, benchmarks=("news", "irony"), seeds=(0,), rows=20))["Training dynamics"]
    assert [d.name for d in drawn] == ["dynamics_generated_news", "dynamics_generated_irony"]
    assert [ax.get_title(loc="left") for ax in drawn[0].figure.axes] == list(crowd[1:])
    assert all(len(ax.lines) == 2 for ax in drawn[0].figure.axes)  # the method and CE


def test_fractions_need_two(build: Build) -> None:
    assert names(build, fractions=(0.1, 1.0), methods=("ce", "dimp"), seeds=(0,))["How many real rows"] == ["fractions"]


def test_one_epoch_has_no_dynamics(build: Build) -> None:
    assert names(build, epochs=1, seeds=(0,))["Training dynamics"] == []


def test_bars_start_at_zero_and_add_up_to_the_stand_alone_cost(build: Build) -> None:
    results = build(methods=("ce", "dimp"), seeds=(0,))
    (drawing,) = figures.draw(results)["Cost"]
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
    noisy = Results(results.trials, results.epochs, results.weights.assign(corruption=corruptions), results.meta)
    _, drawing = figures.draw(noisy)["Weights"]
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


def test_colours_do_not_depend_on_what_finished(build: Build) -> None:
    palette = Palette(requested(build(methods=("ce", "imp", "dimp"), seeds=(0,)).trials))
    assert len({palette.color(method) for method in ("ce", "imp", "dimp")}) == 3


def test_the_page_needs_neither_torch_nor_ray_nor_pyplot() -> None:
    code = (
        "import sys, harness.reports.page;"
        "print([m for m in ('torch', 'ray', 'mlflow', 'matplotlib.pyplot') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
