"""Reading two files: columns, labels, verdicts, and every mistake by file and row."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.weigh.checks import check, find_duplicates
from harness.weigh.columns import choose
from harness.weigh.reading import read
from harness.weigh.settings import from_files, from_yaml, seconds

PEOPLE = [{"text": f"the number {k} is {label}", "label": label} for k in range(6) for label in ("good", "bad")]
WRITTEN = [{"text": f"a day of {k} {word}", "label": label} for k, word in enumerate(["sun", "rain", "snow"])
           for label in ("good", "bad")]  # fmt: skip


def files(folder, people=PEOPLE, written=WRITTEN, suffix="jsonl", **options):
    for name, rows in (("people", people), ("written", written)):
        path = folder / f"{name}.{suffix}"
        if suffix == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif suffix == "csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        else:
            pd.DataFrame(rows).to_parquet(path)
    return from_files(folder / f"people.{suffix}", folder / f"written.{suffix}", options)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_both_files_are_read(tmp_path, suffix):
    inputs = read(files(tmp_path, suffix=suffix))
    assert (len(inputs.people), len(inputs.written)) == (12, 6)
    assert inputs.labels == ("bad", "good")
    assert inputs.people.labels.tolist() == [1, 0] * 6
    first = {"jsonl": "people-1", "csv": "people-2", "parquet": "people-1"}[suffix]
    assert inputs.people.ids[0] == first
    assert all(columns.guessed for columns in inputs.columns.values())


@pytest.mark.parametrize("labels", [(1, 2, 3), (1.0, 2.0, 3.0), ("1", "2", " 3 ")])
def test_labels_may_be_numbers(tmp_path, labels):
    """The label 1 is the first class, not the second."""
    people = [{"text": f"row {k} of {label}", "label": label} for k in range(5) for label in labels]
    inputs = read(files(tmp_path, people, people, suffix="parquet"))
    assert inputs.labels == ("1", "2", "3")
    assert inputs.people.labels.tolist() == [0, 1, 2] * 5


def test_whole_numbers_are_sorted_by_size(tmp_path):
    people = [{"text": f"row {k} of {label}", "label": label} for k in range(5) for label in (10, 9, 2)]
    assert read(files(tmp_path, people, people)).labels == ("2", "9", "10")


@pytest.mark.parametrize(
    ("records", "text", "label"),
    [
        ([{"id": i, "tweet": "some words", "mood": "ab"[i % 2]} for i in range(9)], ("tweet",), "mood"),
        ([{"Sentence": "x", "Label": "a"}] * 9, ("Sentence",), "Label"),
        ([{"premise": "p", "hypothesis": "h", "label": 1}] * 9, ("premise", "hypothesis"), "label"),
        ([{"key": f"k{i}", "a body": "a long text", "kind": "xyz"[i % 3]} for i in range(9)], ("a body",), "kind"),
    ],
)  # fmt: skip
def test_columns_are_guessed(records, text, label):
    chosen = choose(records, None, None, "file")
    assert (chosen.text, chosen.label, chosen.guessed) == (text, label, True)


def test_named_columns_are_taken(tmp_path):
    people = [row | {"other": row["text"]} for row in PEOPLE]
    inputs = read(files(tmp_path, people, [row | {"other": "o"} for row in WRITTEN], text="other", label="label"))
    assert set(inputs.written.texts) == {"o"}
    assert not any(columns.guessed for columns in inputs.columns.values())


def test_columns_of_the_human_file_come_first(tmp_path):
    people = [{"words": row["text"] * 3, "kind": row["label"]} for row in PEOPLE]
    written = [{"kind": "good", "words": "one row", "label": "never"}]
    inputs = read(files(tmp_path, people, written))
    assert inputs.written.texts == ("one row",)
    assert all(columns.guessed for columns in inputs.columns.values())


def without(key):
    return [{k: v for k, v in row.items() if k != key} for row in WRITTEN]


@pytest.mark.parametrize(
    ("people", "written", "message"),
    [
        ([], WRITTEN, "people.jsonl: expected at least one row, found none"),
        (PEOPLE, [{"text": "x", "label": "goood"}],
         "unknown label 'goood' in .*written.jsonl, line 1; the human rows do not have it. Did you mean 'good'"),
        ([row | {"label": "good"} for row in PEOPLE], WRITTEN, "expected at least two labels in 'label', found only"),
        (PEOPLE[:9], WRITTEN, "expected at least 5 rows of every label, one for each fold; 'bad' has 4"),
        (PEOPLE, without("label"), "written.jsonl: expected a label column, found 'text'.* Name it with --label"),
        (PEOPLE, without("text"), "written.jsonl: expected a text column beside the label 'label'.* --text"),
        (PEOPLE, [{"text": " ", "label": "bad"}, *WRITTEN], "written.jsonl, line 1: 'text' is empty"),
        (PEOPLE, [*WRITTEN, {"text": "x", "label": None}], "written.jsonl, line 7: 'label': expected a label, found"),
        ([row | {"id": f"a{k}\nb"} for k, row in enumerate(PEOPLE)], WRITTEN, "'id': expected an id on one line"),
        (PEOPLE, [{"text": "cut \ud83d", "label": "bad"}], r"line 1: the text has a broken character: .*ud83d"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path, people, written, message):
    with pytest.raises(UserError, match=message):
        read(files(tmp_path, people, written))


def test_ids_that_are_not_unique_are_no_ids(tmp_path):
    assert read(files(tmp_path, [row | {"id": 3} for row in PEOPLE])).people.ids[:2] == ("people-1", "people-2")
    named = read(files(tmp_path, [row | {"id": f"x{k}"} for k, row in enumerate(PEOPLE)]))
    assert named.people.ids[:2] == ("people-x0", "people-x1")


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    settings = files(tmp_path)
    (tmp_path / "written.jsonl").write_bytes(b'{"text": "caf\xe9 au lait", "label": "bad"}\n')
    with pytest.raises(
        UserError, match=r"written.jsonl, line 1: the text has a broken character: .*Save the file as UTF-8"
    ):
        read(settings)


def test_a_missing_file_names_the_nearest(tmp_path):
    files(tmp_path)
    with pytest.raises(UserError, match=r"unknown file 'writen.jsonl'.*Did you mean 'written.jsonl'"):
        read(from_files(tmp_path / "people.jsonl", tmp_path / "writen.jsonl", {}))


def verdicts(folder, rows):
    (folder / "verdicts.csv").write_text("id,verdict\n" + "".join(f"{id_},{verdict}\n" for id_, verdict in rows))
    return files(folder, reviewed=str(folder / "verdicts.csv"))


def test_verdicts_are_taken_back(tmp_path):
    before = read(files(tmp_path)).written
    inputs = read(verdicts(tmp_path, [(1, "keep"), (2, "drop"), (3, "bad"), (4, ""), (5, "good")]))
    assert inputs.written.ids == tuple(id_ for id_ in before.ids if id_ != "written-2")
    expected = dict(zip(before.ids, before.labels.tolist(), strict=True)) | {"written-3": 0}
    assert inputs.written.labels.tolist() == [expected[id_] for id_ in inputs.written.ids]
    assert inputs.confirmed == {"written-1", "written-3", "written-5"}
    assert inputs.reviewed == {"kept": 2, "dropped": 1, "relabeled": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, "delete")], "unknown verdict 'delete' in .*verdicts.csv, line 2.* Known: bad, drop, good, keep"),
        ([(99, "keep")], "unknown id '99' in .*verdicts.csv, line 2"),
        ([(k, "drop") for k in range(1, 7)], "every written row is dropped"),
        ([(1, "drop"), (1, "keep")], "line 3: expected one verdict for each id, found another one for '1'"),
    ],
)
def test_wrong_verdicts_are_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read(verdicts(tmp_path, rows))


def notes(tmp_path, people=PEOPLE, written=WRITTEN):
    inputs = read(files(tmp_path, people, written))
    return "\n".join(check(inputs, find_duplicates(inputs.people, inputs.written)))


def test_copies_of_human_rows_are_found(tmp_path):
    inputs = read(files(tmp_path, written=[*WRITTEN, {"text": "The number 3 is good!", "label": "bad"}, WRITTEN[0]]))
    duplicates = find_duplicates(inputs.people, inputs.written)
    assert duplicates.of_people.keys() == {"written-7"}
    assert duplicates.of_people["written-7"] in inputs.people.ids
    assert duplicates.of_written["written-8"] == "written-1"
    assert "Copies or near-copies of human rows among the written ones, not trained on: 1." in notes(
        tmp_path, written=[*WRITTEN, PEOPLE[0]]
    )


def test_only_copies_are_refused(tmp_path):
    with pytest.raises(UserError, match="all 12 written rows are copies or near-copies of human rows"):
        notes(tmp_path, written=PEOPLE)


def test_another_script_is_refused_and_another_language_noted(tmp_path):
    russian = [{"text": "это очень хороший день", "label": "good"}, {"text": "плохая погода", "label": "bad"}]
    with pytest.raises(UserError, match="most letters of the human rows are Latin, most of the written rows Cyrillic"):
        notes(tmp_path, written=russian)
    english = [{"text": f"this is the best of all the days and I like it {k}", "label": "good"} for k in range(5)]
    english += [{"text": f"it was the worst of the days and I do not like it {k}", "label": "bad"} for k in range(5)]
    german = [{"text": "das ist ein guter Tag und wir haben Sonne", "label": "good"},
              {"text": "so ein schlechter Tag mit Regen und Wind", "label": "bad"}]  # fmt: skip
    assert "another language or another kind of text?" in notes(tmp_path, english, german)
    assert "another language" not in notes(tmp_path, english, [{"text": "the day was good", "label": "good"}])


def test_a_label_that_no_written_row_has_is_noted(tmp_path):
    assert "Labels that no written row has: bad." in notes(tmp_path, written=[WRITTEN[0]])


def test_broken_characters_are_noted(tmp_path):
    broken = [{"text": f"donâ€™t do it {k}", "label": "bad"} for k in range(3)]
    assert "Broken characters in 3 of 9 written rows" in notes(tmp_path, written=[*WRITTEN, *broken])


@pytest.mark.parametrize(("text", "value"), [("30m", 1800), ("1h30m", 5400), ("90s", 90), (15, 900), ("2 h", 7200)])
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "0m", "-5m", "3 weeks", True, None])
def test_wrong_durations_are_refused(text):
    with pytest.raises(ValueError, match="expected a duration such as 30m"):
        seconds(text)


def test_a_yaml_file_has_paths_of_its_own_folder(tmp_path):
    files(tmp_path)
    path = tmp_path / "weigh.yaml"
    path.write_text("people: people.jsonl\nwritten: {file: written.jsonl}\nbudget: 10m\nname: mine\n")
    settings = from_yaml(path, {"label": "label"}, ("training.max_length=64",))
    assert len(read(settings).people) == 12
    assert (settings.title, settings.budget, settings.label) == ("mine", 600, "label")
    assert settings.experiment == {"training": {"max_length": 64}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people: people.jsonl\n", "written is missing"),
        ("people: a\nwritten: b\nbugdet: 3m\n", "unknown key 'bugdet'. Did you mean 'budget'"),
        (
            "people: a\nwritten: b\nexperiment: {rows: {test: 3}}\n",
            "experiment.rows: `harness weigh` sets it",
        ),
        ("people: a\nwritten: b\nexperiment: {training: {steps: 9}}\n", "training.steps: `harness weigh` sets it"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, message):
    (tmp_path / "weigh.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        from_yaml(tmp_path / "weigh.yaml", {})


def test_titles_come_from_the_files(tmp_path):
    assert files(tmp_path).title == "people-written"
    assert np.all([character.isalnum() or character in "-_." for character in from_files(
        tmp_path / "my people (1).csv", tmp_path / "b.csv", {}).title])  # fmt: skip


def test_verdicts_may_be_numbers(tmp_path):
    rows = [{"text": f"row {k} of {label}", "label": label} for k in range(5) for label in (0, 1)]
    pd.DataFrame({"id": [1, 2, 3], "verdict": [0.0, 0.0, float("nan")]}).to_parquet(tmp_path / "verdicts.parquet")
    settings = files(tmp_path, rows, rows, reviewed=str(tmp_path / "verdicts.parquet"))
    inputs = read(settings)
    assert inputs.reviewed == {"kept": 1, "relabeled": 1}
    assert inputs.written.labels.tolist() == [0, 0, *([0, 1] * 4)]


def test_mixed_scripts_are_one_language(tmp_path):
    people = [{"text": f"これはとてもいいです{k}", "label": label} for k in range(5) for label in ("a", "b")]
    assert (
        "language" not in notes(tmp_path, people, [{"text": "本日天気晴朗也", "label": "a"}]).partition("frequent")[0]
    )


def test_accented_capitals_are_not_broken(tmp_path):
    assert "Broken" not in notes(
        tmp_path, written=[{"text": f"NÃO EM SÃO PAULO {k}", "label": "bad"} for k in range(3)]
    )
