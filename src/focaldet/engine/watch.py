"""Says, once each, what looks wrong in the figures of a run."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

WINDOW = 100
"""Steps that are looked back on."""
DOMINANT = 0.95
"""Share of the loss, over a whole window, above which one term drowns the others."""
EXPLODED = 30.0
"""Times the window's median above which a gradient's norm has exploded."""
KNOWN = 20
"""Steps of which the norm must be known before one can be called large."""


class Watch:
    """Looks at the figures of every step.

    Args:
        say: where warnings go.
        window: steps that are looked back on.
    """

    def __init__(self, say: Callable[[str], None], window: int = WINDOW) -> None:
        self.say, self.window = say, window
        self._norms: deque[float] = deque(maxlen=window)
        self._terms: deque[dict[str, float]] = deque(maxlen=window)
        self._said: set[str] = set()

    def look(self, step: int, terms: dict[str, float], norm: float) -> None:
        """Take in one step.

        Args:
            step: its number.
            terms: of the loss, without their sum.
            norm: of the gradient, before clipping.
        """
        self._look_at_terms(step, terms)
        self._look_at_norm(step, norm)

    def _look_at_terms(self, step: int, terms: dict[str, float]) -> None:
        self._terms.append(terms)
        if len(self._terms) < self.window or len(terms) < 2:
            return
        sums = {name: sum(each.get(name, 0.0) for each in self._terms) for name in terms}
        name = max(sums, key=lambda key: sums[key])
        share = sums[name] / max(sum(sums.values()), 1e-12)
        if share > DOMINANT:
            self._say_once(
                "terms",
                f"warning: at step {step} the term {name} makes {100 * share:.0f} % of the loss of the last "
                f"{self.window} steps (over {100 * DOMINANT:.0f} %), so that the others hardly teach; "
                "look at the targets and at box_weight",
            )

    def _look_at_norm(self, step: int, norm: float) -> None:
        if len(self._norms) >= KNOWN:
            usual = statistics.median(self._norms)
            if norm > EXPLODED * usual:
                self._say_once(
                    "norm",
                    f"warning: at step {step} the gradient's norm is {norm:.3g}, {norm / max(usual, 1e-12):.0f} times "
                    f"the median of the last {len(self._norms)} steps (over {EXPLODED:.0f} times): it explodes; "
                    "lower lr, warm up longer or clip",
                )
        self._norms.append(norm)

    def _say_once(self, what: str, sentence: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self.say(sentence)
