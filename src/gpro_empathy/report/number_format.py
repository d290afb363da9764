"""Numbers and lists as text: one way to write them, whatever kind of text they stand in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpro_empathy.analysis.results import Estimate

# Smaller p-values are not told apart: so many resamples are not drawn.
SMALLEST_P = 0.001


@dataclass(frozen=True)
class NumberFormat:
    """How one kind of text writes numbers.

    `mark` makes its form of an ASCII number such as -0.41, `below` of one such as 0.001 that is
    above the value, `missing` stands for None, and `brackets` are put around an interval.
    """

    mark: Callable[[str], str]
    below: Callable[[str], str]
    missing: str
    brackets: tuple[str, str] = ("[", "]")

    def number(self, value: float | None, digits: int, signed: bool = False) -> str:
        """Return a number with a fixed count of digits after the point."""
        if value is None:
            return self.missing
        text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
        # What rounds to 0 has no sign.
        return self.mark(f"{0:.{digits}f}" if float(text) == 0 else text)

    def interval(self, low: float, high: float, digits: int, signed: bool = False) -> str:
        """Return an interval as [low, high]."""
        opening, closing = self.brackets
        return f"{opening}{self.number(low, digits, signed)}, {self.number(high, digits, signed)}{closing}"

    def estimate(self, estimate: Estimate, digits: int = 2, signed: bool = True) -> str:
        """Return an estimate, with its interval if it has one."""
        number = self.number(estimate["estimate"], digits, signed)
        if estimate["low"] is None:
            return number
        return f"{number} {self.interval(estimate['low'], estimate['high'], digits)}"

    def p_value(self, p: float) -> str:
        """Return a p-value with three digits, or that it is below the smallest of them."""
        return self.below(f"{SMALLEST_P:g}") if p < SMALLEST_P else self.mark(f"{p:.3f}")


def listed(words: Sequence[str]) -> str:
    """Return words in a row, with commas and an "and"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _true_minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


PAGE = NumberFormat(mark=_true_minus, below=lambda text: f"< {text}", missing="\N{EN DASH}")
MARKDOWN = NumberFormat(mark=str, below=lambda text: f"< {text}", missing="not defined")
LATEX = NumberFormat(
    mark=lambda text: rf"\num{{{text}}}",
    below=lambda text: rf"\num{{<{text}}}",
    missing="--",
    # In braces, so that an interval can be the first cell of a row too.
    brackets=("{[}", "{]}"),
)
