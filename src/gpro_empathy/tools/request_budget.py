"""How many requests an endpoint gets and what they cost, within the user's limits."""

from typing import Any

from gpro_empathy.files import UserError

# Of a request whose tokens no server has counted: more tokens than texts have.
BYTES_PER_TOKEN = 2


class LimitReachedError(Exception):
    """A limit stands before the next request; its text says which."""


class Budget:
    """Counts requests, tokens and their cost.

    Args:
        requests: Requests at most, repeated ones too.
        cost: At most, in the currency of the prices; None for no limit.
        prices: Of a million tokens that are sent, and that are received; None if unknown.

    Raises:
        UserError: If a number is below 0 or none, or a cost is limited without prices.
    """

    def __init__(self, requests: int, cost: float | None = None, prices: tuple[float, float] | None = None) -> None:
        given = [("--max-requests", requests), ("--max-cost", cost), *(("--prices", price) for price in prices or ())]
        for name, value in given:
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"{name}: {value} is no number from 0")
        if cost is not None and prices is None:
            raise UserError("--max-cost needs --prices, those of a million tokens sent and received")
        self.max_requests, self.max_cost, self.prices = requests, cost, prices
        self.requests, self.sent, self.received, self.cost = 0, 0, 0, 0.0

    def most(self, size: int, max_tokens: int) -> float:
        """Return what a request of `size` bytes costs at most; 0 where no prices are known."""
        return self._price(size / BYTES_PER_TOKEN, max_tokens)

    def take(self, size: int, max_tokens: int) -> None:
        """Count a request that is about to be sent.

        Raises:
            LimitReachedError: If it could exceed a limit; it is not counted then.
        """
        if self.requests >= self.max_requests:
            raise LimitReachedError(f"--max-requests {self.max_requests}")
        if self.max_cost is not None and self.cost + self.most(size, max_tokens) > self.max_cost:
            raise LimitReachedError(f"--max-cost {self.max_cost:g}, of which {self.cost:.4g} is spent")
        self.requests += 1

    def spend(self, usage: Any, size: int, max_tokens: int) -> None:
        """Add what a request took, by the server's count; at its most, where it tells none.

        Args:
            usage: As the server tells it, with prompt_tokens and completion_tokens.
        """
        used = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
        if all(isinstance(count, int) and count >= 0 for count in used):
            self.sent += used[0]
            self.received += used[1]
            self.cost += self._price(*used)
        else:
            self.cost += self.most(size, max_tokens)

    def told(self) -> str:
        """Return the cost for the end of a line; nothing where no prices are known."""
        return f", cost {self.cost:.2f}" if self.prices else ""

    def _price(self, sent: float, received: float) -> float:
        prices = self.prices or (0.0, 0.0)
        return (prices[0] * sent + prices[1] * received) / 1e6
