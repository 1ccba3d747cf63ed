"""The two ways of giving detections their truth, detection by detection; compiled where numba is installed.

Both walk over the detections in the order given and look only at the pairs that overlap enough. Without numba the same
loops run as they stand: slower, to the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from numba import njit
except ImportError:

    def njit(**_: Any) -> Callable[[Any], Any]:  # type: ignore[no-redef, unused-ignore]
        """Stand in for numba's decorator: leaves a function as it is."""
        return lambda function: function


FALSE_ALARM, HIT, UNCOUNTED = 0, 1, 2
"""What becomes of a detection."""


@njit(cache=True, error_model="numpy")
def match_voc(starts, truths, ious, ignored, threshold, outcome):  # type: ignore[no-untyped-def]
    """Match as PASCAL VOC and the DOTA devkit do: each detection looks at one truth only, the one it overlaps most.

    Of equal overlaps the first truth counts. It takes part although another detection has it already: then the
    detection is a false alarm, even where a second truth overlaps enough.

    Args:
        starts: (N + 1,) where the pairs of each detection start; of a picture and class the best comes first.
        truths: (P,) the truth of each pair.
        ious: (P,) its IoU.
        ignored: (G,) truths where a detection is neither hit nor false alarm.
        threshold: the IoU that a hit must exceed.
        outcome: (N,) int8, holding FALSE_ALARM; the others are filled in.
    """
    taken = np.zeros(len(ignored), np.bool_)
    for detection in range(len(starts) - 1):
        best, most = -1, threshold
        for p in range(starts[detection], starts[detection + 1]):
            if ious[p] > most or (ious[p] == most and best >= 0 and truths[p] < best):
                best, most = truths[p], ious[p]
        if best >= 0 and ignored[best]:
            outcome[detection] = UNCOUNTED
        elif best >= 0 and not taken[best]:
            outcome[detection], taken[best] = HIT, True


@njit(cache=True, error_model="numpy")
def match_coco(starts, truths, ious, wanted, shared, thresholds, outcome):  # type: ignore[no-untyped-def]
    """Match as COCO does: each detection takes the free truth that it overlaps most, at each IoU and for each size.

    Truth to be found goes before truth that is not wanted, of equal overlaps the later one. A detection that takes
    an unwanted truth does not count.

    Args:
        starts: (N + 1,) where the pairs of each detection start; of a picture and class the best comes first.
        truths: (P,) the truth of each pair.
        ious: (P,) its IoU.
        wanted: (G, S) the truths that are to be found, for each size.
        shared: (G,) truths that take any number of detections.
        thresholds: (T,) the least IoU of a hit, rising.
        outcome: (S, T, N) int8, holding what a detection without a match is; the others are filled in.
    """
    num_truths, num_sizes = wanted.shape
    taken = np.zeros((num_truths, num_sizes, len(thresholds)), np.bool_)
    for detection in range(len(starts) - 1):
        start, end = starts[detection], starts[detection + 1]
        largest = 0.0
        for p in range(start, end):
            largest = max(largest, ious[p])
        for t in range(len(thresholds)):
            if largest < thresholds[t]:
                break
            for size in range(num_sizes):
                best, most, best_wanted = -1, 0.0, False
                for p in range(start, end):
                    truth = truths[p]
                    is_wanted = wanted[truth, size]
                    if ious[p] < thresholds[t] or taken[truth, size, t] or (best_wanted and not is_wanted):
                        continue
                    if is_wanted != best_wanted or ious[p] > most or (ious[p] == most and truth > best):
                        best, most, best_wanted = truth, ious[p], is_wanted
                if best >= 0:
                    outcome[size, t, detection] = HIT if best_wanted else UNCOUNTED
                    taken[best, size, t] = not shared[best]
