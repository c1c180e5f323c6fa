from __future__ import annotations

import hashlib
import inspect

from hypothesis import given
from hypothesis import strategies as st

from harness.seeds import derive, generator


def test_streams_are_pinned():
    raw = hashlib.sha256(b"0/order/0").digest()[:8]
    assert derive(0, "order", 0) == int.from_bytes(raw, "little") // 2 == 3991725939186754870
    assert generator(0, "order", 0).integers(1000, size=5).tolist() == [482, 800, 740, 162, 252]


@given(st.integers(0, 2**40), st.sampled_from(["order", "subset", "dropout"]), st.integers(0, 5))
def test_seeds_fit_every_generator(seed, stream, more):
    value = derive(seed, stream, more)
    assert 0 <= value < 2**63
    assert value == derive(seed, stream, more)


def test_seeds_streams_and_parts_are_all_told_apart():
    keys = [(seed, stream, *more) for seed in range(20) for stream in ("a", "b") for more in ((), (0,), (1,), (0, 1))]
    assert len({derive(*key) for key in keys}) == len(keys)


def test_generators_share_nothing():
    first, second = generator(3, "order"), generator(3, "order")
    first.random(100)
    assert second.random() == generator(3, "order").random()
    assert generator(3, "order").random() != generator(3, "subset").random()


def test_no_stream_knows_the_method():
    assert "method" not in inspect.signature(derive).parameters
