"""How fast and how much: requests and tokens a minute, money and tokens in all."""

from __future__ import annotations

import asyncio
import time

from harness.llm.journal import Usage
from harness.llm.settings import Limits

MILLION = 1_000_000


def cost(limits: Limits, tokens_in: float, tokens_out: float) -> float | None:
    """Money for these tokens, or None without prices."""
    if limits.price_in is None or limits.price_out is None:
        return None
    return (tokens_in * limits.price_in + tokens_out * limits.price_out) / MILLION


class RateLimiter:
    """At most so much a minute, evenly spaced: never a burst for the server to refuse.

    Args:
        per_minute: the limit, or None for none.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self, amount: float) -> None:
        """Returns when ``amount`` more may be used."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)

    def correct(self, more: float) -> None:
        """So much more than foreseen was used (less, where negative)."""
        self._next += more * self._seconds_each


class Budget:
    """What has been used, and whether one more request fits into what may be.

    A request under way is counted at its worst case (its prompt and the longest answer allowed), so the limits hold
    whatever the answers turn out to be. A request that does not fit waits for those under way: they mostly turn out
    smaller.

    Args:
        limits: prices and limits.
        before: what earlier runs used.
    """

    def __init__(self, limits: Limits, before: Usage) -> None:
        self._limits = limits
        self.tokens_in, self.tokens_out = before.tokens_in, before.tokens_out
        self._worst_in = self._worst_out = self._under_way = 0
        self._change = asyncio.Condition()
        self.reached: str | None = None

    @property
    def cost(self) -> float | None:
        """Money so far, or None without prices."""
        return cost(self._limits, self.tokens_in, self.tokens_out)

    async def reserve(self, tokens_in: int, tokens_out: int) -> bool:
        """Whether a request of this worst case may be sent. After the first that may not, none may."""
        async with self._change:
            while self.reached is None and (limit := self._exceeded(tokens_in, tokens_out)):
                if not self._under_way:
                    self.reached = limit
                    self._change.notify_all()
                else:
                    await self._change.wait()
            if self.reached is not None:
                return False
            self._under_way += 1
            self._worst_in += tokens_in
            self._worst_out += tokens_out
            return True

    async def settle(self, tokens_in: int, tokens_out: int, used: tuple[int, int]) -> None:
        """A reserved request ended, and used these prompt and answer tokens."""
        async with self._change:
            self._under_way -= 1
            self._worst_in -= tokens_in
            self._worst_out -= tokens_out
            self.tokens_in += used[0]
            self.tokens_out += used[1]
            self._change.notify_all()

    def _exceeded(self, tokens_in: int, tokens_out: int) -> str | None:
        all_in = self.tokens_in + self._worst_in + tokens_in
        all_out = self.tokens_out + self._worst_out + tokens_out
        budget, most = self._limits.budget, self._limits.max_tokens_total
        money = cost(self._limits, all_in, all_out)
        if budget is not None and money is not None and money > budget:
            return f"the budget of {budget:g}"
        if most is not None and all_in + all_out > most:
            return f"the limit of {most} tokens"
        return None
