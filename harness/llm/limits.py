"""Limits on requests and tokens per minute, and on total cost and tokens."""

from __future__ import annotations

import asyncio
import time

from harness.llm.journal import Usage
from harness.llm.settings import Limits

MILLION = 1_000_000


def cost(limits: Limits, tokens_in: float, tokens_out: float) -> float | None:
    """Cost of prompt and answer tokens, or None without prices."""
    if limits.price_in is None or limits.price_out is None:
        return None
    return (tokens_in * limits.price_in + tokens_out * limits.price_out) / MILLION


class RateLimiter:
    """Limits an amount per minute, evenly spaced, without bursts.

    Args:
        per_minute: the limit, or None for no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._seconds_per_unit = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self, amount: float) -> None:
        """Waits until ``amount`` more may be used."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + amount * self._seconds_per_unit
        if start > now:
            await asyncio.sleep(start - now)

    def correct(self, difference: float) -> None:
        """Accounts for the difference between the amount used and the amount that was waited for."""
        self._next += difference * self._seconds_per_unit


class Budget:
    """Tokens and money used so far, and whether another request fits into the limits.

    A request in progress is counted at its worst case (its prompt and the longest answer allowed), so the limits are
    never exceeded. A request that does not fit waits for those in progress, which mostly use less.

    Args:
        limits: prices and limits.
        before: usage of earlier runs.

    Attributes:
        limit_reached: the limit that the first refused request would have exceeded, or None.
    """

    def __init__(self, limits: Limits, before: Usage) -> None:
        self._limits = limits
        self.tokens_in, self.tokens_out = before.tokens_in, before.tokens_out
        self._worst_in = self._worst_out = self._in_progress = 0
        self._change = asyncio.Condition()
        self.limit_reached: str | None = None

    @property
    def cost(self) -> float | None:
        """Cost so far, or None without prices."""
        return cost(self._limits, self.tokens_in, self.tokens_out)

    async def reserve(self, tokens_in: int, tokens_out: int) -> bool:
        """Reserves the worst case of a request; False if it exceeds a limit, then and for all later requests."""
        async with self._change:
            while self.limit_reached is None and (limit := self._exceeded(tokens_in, tokens_out)):
                if not self._in_progress:
                    self.limit_reached = limit
                    self._change.notify_all()
                else:
                    await self._change.wait()
            if self.limit_reached is not None:
                return False
            self._in_progress += 1
            self._worst_in += tokens_in
            self._worst_out += tokens_out
            return True

    async def settle(self, tokens_in: int, tokens_out: int, used: tuple[int, int]) -> None:
        """Replaces the reservation of a finished request by the prompt and answer tokens that it used."""
        async with self._change:
            self._in_progress -= 1
            self._worst_in -= tokens_in
            self._worst_out -= tokens_out
            self.tokens_in += used[0]
            self.tokens_out += used[1]
            self._change.notify_all()

    def _exceeded(self, tokens_in: int, tokens_out: int) -> str | None:
        total_in = self.tokens_in + self._worst_in + tokens_in
        total_out = self.tokens_out + self._worst_out + tokens_out
        budget, max_tokens = self._limits.budget, self._limits.max_tokens_total
        total_cost = cost(self._limits, total_in, total_out)
        if budget is not None and total_cost is not None and total_cost > budget:
            return f"the budget of {budget:g}"
        if max_tokens is not None and total_in + total_out > max_tokens:
            return f"the limit of {max_tokens} tokens"
        return None
