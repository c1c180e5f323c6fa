"""Finished trials in files, for ledgers that are read through MLflow.

MLflow takes milliseconds to send one trial. So the driver puts finished trials into batches. It announces a batch by a
tag of the parent run, and every trial that finishes has the batch's name as a tag. A full batch is written to a file,
an artifact of the parent run, and the parent's tag then has its path. A reader asks for the trials that are not
finished, reads the files, and asks for the trials of batches that are still open. No step depends on a clock. A driver
that is killed leaves an open batch; the next one writes its file.

A trial that is deleted on MLflow's pages is left out, as long as `mlflow gc` has not removed it for good: after that,
delete the tags of the parent run that begin with ``harness.batch.``, and the next run writes new files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from harness.ledger.entries import Entry

#: Tag of a finished trial: the name of its batch. The parent's tag for a batch has this and a dot before the name.
BATCH = "harness.batch"
#: Value of the parent's tag until the batch has a file.
OPEN = "open"
#: The batch of the trials that were finished before their experiment had batches; they have no tag.
EARLIER = "earlier"
#: Folder of the files. Their content never changes: its hash is in the name.
FOLDER = "batches"
#: Trials of a batch. MLflow is asked for fewer than this of every driver that was killed.
SIZE = 200


def tag(name: str) -> str:
    """The parent's tag for a batch."""
    return f"{BATCH}.{name}"


def batches(tags: Mapping[str, str]) -> dict[str, str]:
    """Name -> path of its file, or ``OPEN``, by the tags of a parent run."""
    prefix = tag("")
    return {key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)}


def pack(name: str, entries: Iterable[Entry]) -> tuple[str, bytes]:
    """The path and the content of a batch's file.

    Its name does not say that it is compressed: some artifact stores would send it uncompressed then.
    """
    content = json.dumps([asdict(entry) for entry in entries], sort_keys=True).encode()
    return f"{FOLDER}/{name}-{hashlib.sha256(content).hexdigest()[:16]}.batch", gzip.compress(content, 6, mtime=0)


def unpack(content: bytes) -> list[Entry]:
    """The trials in a batch's file."""
    return [Entry(**raw) for raw in json.loads(gzip.decompress(content))]
