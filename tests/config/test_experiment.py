"""Valid experiments, and the exact error for each mistake in one."""

from __future__ import annotations

import pathlib

import pytest

from harness.config.benchmark import Benchmark, DataSource, PoolSplit
from harness.config.checkers import DiversityChecker, QualityChecker
from harness.config.experiment import Experiment, GridRow, MethodChoice, Training, load
from harness.config.schema import parse
from harness.config.sources import STAGES
from harness.errors import UserError
from harness.planning.plan import resolve

from .files import BASE, ROWS, message, write

TRAINING = ", ".join(sorted(Training.model_fields))
SPLITS = "generated, noisy, real_large, real_small, test, validation"


def benchmark(**changes):
    return {"benchmarks": [{"name": "b", "labels": ["n", "y"], "splits": ROWS} | changes]}


def method(*entries):
    return {"grid": [{"source": "generated", "methods": list(entries)}]}


QUOTE = "YAML reads yes, no, on and off as true and false: write them in quotes, e.g. 'yes'"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"trainig": {}},
            "unknown key 'trainig'. Did you mean 'training'? Known: "
            + ", ".join(sorted(Experiment.model_fields)) + ".",
        ),
        (
            {"training": {"learning_rat": 1}},
            f"unknown key 'learning_rat' in training. Did you mean 'learning_rate'? Known: {TRAINING}.",
        ),
        ({"epochs": 3}, "unknown key 'epochs'. It belongs to 'training': training.epochs"),
        ({"training": {"epochs": 0}}, "training.epochs: expected at least 1, found 0"),
        ({"training": {"epochs": "five"}}, "training.epochs: expected a whole number, found 'five'"),
        ({"training": {"epochs": 1.5}}, "training.epochs: expected a whole number, found 1.5"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate: expected a number above 0.0, found 0"),
        ({"training": {"warmup": 1}}, "training.warmup: expected a number below 1.0, found 1"),
        (
            {"training": {"precision": "bfloat"}},
            "unknown value 'bfloat' in training.precision. Did you mean 'bfloat16'? Known: bfloat16, float32.",
        ),
        ({"training": None}, "training: expected a mapping of settings, found None"),
        (
            {"grid": [{"source": "generted", "methods": ["ce"]}]},
            "grid.0.source: unknown source 'generted'. Did you mean 'generated'? "
            "Known: both, generated, generated_then_real, noisy, real_large, real_small.",
        ),
        (
            {"grid": [{"source": "generated", "method": ["ce"]}]},
            "grid.0.methods is missing\n"
            "  unknown key 'method' in grid.0. Did you mean 'methods'? Known: methods, seeds, source.",
        ),
        ({"grid": []}, "grid: expected at least 1, found 0: []"),
        ({"grid": "generated"}, "grid: expected a list, found 'generated'"),
        (method(), "grid.0.methods: expected at least 1, found 0: []"),
        (method("ce", 3), "grid.0.methods.1: expected a mapping of settings, found 3"),
        (
            method({"focal": {"gamma": 1}}),
            "grid.0.methods.0: a method needs a name, e.g. {name: focal, gamma: 1}; found {'focal': {'gamma': 1}}",
        ),
        (
            method({"name": "focal", "settings": 3}),
            "grid.0.methods.0: settings: expected a mapping of settings, found 3",
        ),
        ({"seeds": [0, 0]}, "seeds: expected distinct values, at least one, found [0, 0]"),
        ({"seeds": []}, "seeds: expected distinct values, at least one, found []"),
        ({"seeds": 3}, "seeds: expected a list, found 3"),
        ({"quality_fractions": [1.5]}, "quality_fractions.0: expected at most 1.0, found 1.5"),
        ({"name": "my exp"}, "name: expected text that matches ^[A-Za-z0-9_.-]+$, found 'my exp'"),
        ({"benchmarks": []}, "benchmarks: expected at least 1, found 0: []"),
        ({"benchmarks": 3}, "benchmarks: expected a list, found 3"),
        ({"benchmarks": [3]}, "benchmarks.0: expected text, found 3. Write it in quotes: '3'"),
        (
            {"stages": {"real_smal": {"steps": 3}}},
            f"unknown stage 'real_smal' in stages. Did you mean 'real_small'? Known: {', '.join(sorted(STAGES))}.",
        ),
        ({"stages": {"real_small": {}}}, "stages.real_small: expected epochs, steps, or both"),
        (
            {"checkers": {"quality_steps": 60}},
            "checkers.quality_steps is now stages.real_small.steps: stages: {real_small: {steps: 80}}",
        ),
        (
            {"checkers": {"quality": {"source": "generated"}}},
            "unknown value 'generated' in checkers.quality.source. Known: real_large, real_small.",
        ),
        ({"checkers": {"diversity": {"layers": 0}}}, "checkers.diversity.layers: expected at least 1, found 0"),
        ({"rows": {"test": 10**30}}, f"rows.test: expected at most 1000000000, found {10**30}"),
        ({"rows": {"tst": 3}}, f"unknown split 'tst' in rows. Did you mean 'test'? Known: {SPLITS}."),
        ({"rows": {"test": 0}}, "rows.test: expected at least 1, found 0"),
        (
            {"sweep": {"training.learning_rat": [1e-5]}},
            "unknown setting 'training.learning_rat' in sweep. Did you mean 'training.learning_rate'? "
            "Known: " + ", ".join(sorted(
                ["encoder"] + [f"stages.{name}.{field}" for name in STAGES for field in ("epochs", "steps")]
                + [f"training.{name}" for name in Training.model_fields]
                + [f"checkers.quality.{name}" for name in QualityChecker.model_fields]
                + [f"checkers.diversity.{name}" for name in DiversityChecker.model_fields]
            )) + ".",
        ),
        ({"sweep": {"training.epochs": []}}, "sweep.training.epochs: expected at least one value, found none"),
        ({"sweep": {"training.epochs": 3}}, "sweep.training.epochs: expected a list, found 3"),
        ({"sweep": {"training.epochs": [1, 0]}}, "sweep.training.epochs: expected at least 1, found 0"),
        (
            {"resources": {"gpus": 2}},
            "resources: gpus: expected at most 1 per worker, found 2.0. Use workers for more devices",
        ),
        (
            {"resources": {"workers": 2, "gpus": 0.5}},
            "resources: gpus: expected 0 or 1 with several workers, found 0.5",
        ),
        (
            {"report": {"epoch": "best"}},
            "unknown value 'best' in report.epoch. Did you mean 'last'? Known: best_validation, last.",
        ),
        (
            benchmark(labels=[False, True]),
            f"benchmarks.0.labels.0: expected text, found False. {QUOTE}\n"
            f"  benchmarks.0.labels.1: expected text, found True. {QUOTE}",
        ),
        (benchmark(labels=["n"]), "benchmarks.0.labels: expected at least 2, found 1: ['n']"),
        (benchmark(labels=["n", "n"]), "benchmarks.0.labels: expected distinct label names, found ['n', 'n']"),
        (
            benchmark(splits=ROWS | {"real_smal": {"file": "a"}}),
            f"benchmarks.0: unknown split 'real_smal'. Did you mean 'real_small'? Known: {SPLITS}.",
        ),
        (
            benchmark(splits=ROWS | {"real_small": {"pool": "p", "row": 2}}),
            "unknown key 'row' in benchmarks.0.splits.real_small. Did you mean 'rows'? Known: pool, rows.",
        ),
        (
            benchmark(splits=ROWS | {"real_small": {"fil": "a.csv"}}),
            "unknown key 'fil' in benchmarks.0.splits.real_small. Did you mean 'file'? Known: "
            + ", ".join(sorted(DataSource.model_fields)) + ".",
        ),
        (
            benchmark(splits=ROWS | {"real_small": {"pool": "p", "rows": 2}}, pools={"q": {"file": "a"}}),
            "benchmarks.0: unknown pool 'p' in splits.real_small. Known: q.",
        ),
        (
            benchmark(splits=ROWS | {"real_small": {"file": "a", "hub": "b"}}),
            "benchmarks.0.splits.real_small: expected exactly one of file, package, hub; found file and hub",
        ),
        (
            benchmark(splits={"test": {"file": "a"}}),
            "benchmarks.0: the split 'real_small' is missing; found ['test']",
        ),
        (
            benchmark(text=["a", "b", "c"]),
            "benchmarks.0.text: tuple should have at most 2 items after validation, not 3, found ['a', 'b', 'c']",
        ),
        ("- a\n- b\n", "expected a mapping of settings, found list"),
        ("", "expected a mapping of settings, found NoneType"),
    ],
)  # fmt: skip
def test_error_text(changes, expected, tmp_path):
    assert message(tmp_path, changes) == expected


def test_several_mistakes_are_reported_together(tmp_path):
    text = message(tmp_path, {"seeds": [1, 1], "training": {"epochs": 0, "batch_size": "x"}})
    assert len(text.splitlines()) == 3


def test_yaml_that_cannot_be_read_names_the_line(tmp_path):
    assert message(tmp_path, "labels: [no, yes").startswith("cannot be read as YAML: while parsing a flow sequence")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs", "--set 'training.epochs': expected key=value, e.g. training.epochs=3"),
        ("=3", "--set '=3': expected key=value, e.g. training.epochs=3"),
        ("seeds.x=3", "--set 'seeds.x=3': 'seeds' is not a group of settings"),
        ("training.epochs=[", "--set 'training.epochs=[': '[' cannot be read as a YAML value"),
        ("training.epochs=zero", "training.epochs: expected a whole number, found 'zero'"),
        (
            "training.epoch=3",
            f"unknown key 'epoch' in training. Did you mean 'epochs'? Known: {TRAINING}.",
        ),
    ],
)
def test_bad_override(override, expected, tmp_path):
    assert message(tmp_path, {"seeds": [0]}, override) == expected


def test_overrides_are_typed_by_yaml_and_by_the_setting(tmp_path):
    overrides = (
        "training.epochs=3", "training.learning_rate=2e-5", "training.steps=null", "seeds=[7, 8]",
        "encoder=a/b", "rows.test=30", "benchmarks=other", "grid=[{source: noisy, methods: [imp]}]",
        "sweep={training.epochs: [1, 2]}", "description=a=b",
    )  # fmt: skip
    experiment = load(write(tmp_path, {"training": {"batch_size": 8, "steps": 4}}), overrides)
    assert experiment.training == Training(epochs=3, learning_rate=2e-5, steps=None, batch_size=8)
    assert experiment.seeds == (7, 8)
    assert (experiment.encoder, experiment.rows, experiment.benchmarks) == ("a/b", {"test": 30}, ("other",))
    assert experiment.grid == (GridRow(source="noisy", methods=(MethodChoice(name="imp"),)),)
    assert (experiment.sweep, experiment.description) == ({"training.epochs": (1, 2)}, "a=b")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"name": "focl"},
         "unknown method 'focl'. Did you mean 'focal'? "
         "Known: ce, confident, dimp, filter, focal, gce, hu, imp, imp_quality, llm_few_shot, mix, power, prior, "
         "ratio, relabel, ren, rho, sungen."),
        ({"name": "focal", "gama": 1},
         "method focal: unknown key 'gama'. Did you mean 'gamma'? Known: clip, gamma, normalize."),
        ({"name": "focal", "gamma": -1}, "method focal: gamma: expected at least 0.0, found -1"),
        ({"name": "focal", "gamma": "two"}, "method focal: gamma: expected a number, found 'two'"),
        ({"name": "ce", "gamma": 1}, "method ce: unknown key 'gamma'. Known: clip, normalize."),
        ({"name": "imp", "clip": 0}, "method imp: clip: expected a number above 0.0, found 0"),
    ],
)  # fmt: skip
def test_unknown_method_or_setting(choice, expected):
    with pytest.raises(UserError) as error:
        resolve(MethodChoice.model_validate(choice))
    assert str(error.value) == expected


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    write(tmp_path, {}, "quickstart.yaml")
    with pytest.raises(UserError) as error:
        load(tmp_path / "quickstrt.yaml")
    assert str(error.value) == (
        f"unknown file 'quickstrt.yaml' in {tmp_path}. Did you mean 'quickstart.yaml'? Known: quickstart.yaml."
    )
    with pytest.raises(UserError, match=r"unknown file 'x.yaml' in .*no\. Known: none\."):
        load(tmp_path / "no" / "x.yaml")


@pytest.mark.parametrize(
    ("choice", "settings"),
    [
        ("focal", {}),
        ({"name": "focal"}, {}),
        ({"name": "focal", "gamma": 1}, {"gamma": 1}),
        ({"name": "focal", "settings": {"gamma": 1}}, {"gamma": 1}),
        ({"name": "focal", "settings": {"gamma": 1}, "clip": 2}, {"gamma": 1, "clip": 2}),
    ],
)
def test_short_forms_of_methods(choice, settings):
    assert MethodChoice.model_validate(choice) == MethodChoice(name="focal", settings=settings)
    assert GridRow(source="noisy", methods=[choice, "ce"]).methods[0].settings == settings


def test_one_method_or_benchmark_needs_no_list(tmp_path):
    raw = {"benchmarks": "x", "grid": [{"source": "generated", "methods": "ce"}]}
    experiment = load(write(tmp_path, raw))
    assert (experiment.benchmarks, experiment.grid[0].methods) == (("x",), (MethodChoice(name="ce"),))
    inline = load(write(tmp_path, {"benchmarks": benchmark()["benchmarks"][0]}))
    assert isinstance(inline.benchmarks[0], Benchmark)


def test_name_and_files_come_from_the_file(tmp_path):
    entries = [*benchmark()["benchmarks"], "tickets.yaml", "catalogue_name"]
    experiment = load(write(tmp_path, {"benchmarks": entries}, "tidy.yaml"))
    assert experiment.name == "tidy"
    assert experiment.benchmarks[0].splits["test"] == DataSource(file=str(tmp_path / "c.csv"))
    assert experiment.benchmarks[1:] == (str(tmp_path / "tickets.yaml"), "catalogue_name")


def test_splits_are_read_by_their_keys():
    splits = ROWS | {"generated": {"pool": "p"}, "test": {"hub": "h", "split": "test", "text": ["a", "b"]}}
    parsed = parse(Benchmark, {"name": "b", "labels": ["n", "y"], "splits": splits, "pools": {"p": {"file": "f"}}}, "b")
    assert parsed.splits["generated"] == PoolSplit(pool="p")
    assert parsed.splits["test"] == DataSource(hub="h", split="test", text=("a", "b"))
    assert Benchmark.model_validate_json(parsed.model_dump_json()) == parsed


def test_variants_cross_the_swept_settings():
    experiment = Experiment(
        name="e", **BASE, sweep={"training.learning_rate": [1e-5, 2e-5], "stages.real_small.steps": [40, 80]}
    )
    variants = experiment.variants()
    assert [label for label, _ in variants] == [
        "learning_rate=1e-05, steps=40", "learning_rate=1e-05, steps=80",
        "learning_rate=2e-05, steps=40", "learning_rate=2e-05, steps=80",
    ]  # fmt: skip
    assert [(v.training.learning_rate, v.stages["real_small"].steps) for _, v in variants] == [
        (1e-5, 40), (1e-5, 80), (2e-5, 40), (2e-5, 80),
    ]  # fmt: skip
    assert all(not variant.sweep for _, variant in variants)
    assert experiment.training == Training()
    assert Experiment(name="e", **BASE).variants() == [("", Experiment(name="e", **BASE))]


def test_experiments_share_no_defaults_and_cannot_be_changed():
    first, second = (Experiment(name="e", **BASE) for _ in range(2))
    first.rows["test"] = 3
    assert second.rows == {}
    with pytest.raises(ValueError, match="frozen"):
        first.seeds = (1,)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("[{source: generated, methods: 3}]", r"grid\.0\.methods"),
        ("[{source: generated, methods: [3]}]", r"grid\.0\.methods\.0"),
        ("[3]", r"grid\.0"),
        ("3", r"grid: expected a list"),
    ],
)
def test_numbers_where_methods_are_expected(grid, message, tmp_path):
    (tmp_path / "e.yaml").write_text(f"benchmarks: [b]\ngrid: {grid}\n")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "e.yaml")


def test_an_experiments_path_with_a_nul_byte():
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load(pathlib.Path("a\0b.yaml"))


NUL = "expected a path without NUL bytes, found 'a\\x00b"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"encoder": "a\0b"}, f"encoder: {NUL}'"),
        (benchmark(splits=ROWS | {"test": {"file": "a\0b.csv"}}), f"benchmarks.0.splits.test.file: {NUL}.csv'"),
        (
            benchmark(splits=ROWS | {"test": {"package": "p", "path": "a\0b"}}),
            f"benchmarks.0.splits.test.path: {NUL}'",
        ),
        (
            benchmark(splits=ROWS | {"test": {"hub": "h", "split": "s", "mirror": "a\0b"}}),
            f"benchmarks.0.splits.test.mirror: {NUL}'",
        ),
        (benchmark(pools={"p": {"file": "a\0b.csv"}}), f"benchmarks.0.pools.p.file: {NUL}.csv'"),
        ({"benchmarks": ["a\0b.yaml"]}, f"benchmarks.0: {NUL}.yaml'"),
    ],
)
def test_a_path_in_an_experiment_with_a_nul_byte(changes, expected, tmp_path):
    assert message(tmp_path, changes) == expected


def test_an_override_and_an_include_with_a_nul_byte(tmp_path):
    assert message(tmp_path, {}, 'encoder="a\\0b"') == f"encoder: {NUL}'"
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load(write(tmp_path, {"include": "a\0b.yaml"}))


def test_the_resolved_experiment_has_the_default_length_of_a_stage():
    experiment = Experiment(name="e", **BASE)
    assert experiment.stages["real_small"].steps == 80
    assert Experiment(name="e", **BASE, stages={"generated": {"epochs": 2}}).stages["real_small"].steps == 80


def test_seeds_of_a_row_are_distinct():
    row = {"source": "generated", "methods": ["hu"], "seeds": [1, 1]}
    with pytest.raises(UserError, match=r"grid.0.seeds: expected distinct values, at least one, found \[1, 1\]"):
        parse(Experiment, {"name": "x", "benchmarks": ["mrpc"], "grid": [row]}, "x.yaml")


def test_encoders_that_are_folders_are_relative_to_the_file(tmp_path):
    """Workers run in other folders. Names of the hub and of packages stay as they are."""
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    file = tmp_path / "x.yaml"
    file.write_text(
        "benchmarks: [tweet_sentiment]\ngrid: [{source: generated, methods: [ce]}]\nencoder: ./small\n"
        "checkers: {quality: {encoder: large}, diversity: {encoder: org/hub}}\nsweep: {encoder: [small, org/hub]}\n"
        "resources: {encoders: {large: {gpus: 1}, org/hub: {gpus: 0.5}}}\n"
    )
    experiment = load(file)
    small, large = (str(tmp_path / name) for name in ("small", "large"))
    assert experiment.encoder == small
    assert (experiment.checkers.quality.encoder, experiment.checkers.diversity.encoder) == (large, "org/hub")
    assert experiment.sweep["encoder"] == (small, "org/hub")
    assert set(experiment.resources.encoders) == {large, "org/hub"}
