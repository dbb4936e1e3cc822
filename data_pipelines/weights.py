"""How often an epoch takes each sample of each source: weights, temperature and caps in one place.

| setting     | meaning                                                                                            |
| weight      | times an epoch takes each sample of the source                                                     |
| temperature | T: shares of the epoch become (weight x samples) ** (1/T), of the same number of samples in all;   |
|             | 1 changes nothing, a large T gives every source the same share                                     |
| cap         | at most this many samples of the source an epoch, whatever the rest says; 0: no cap                |
"""

import math
from collections.abc import Sequence


class WeightError(ValueError):
    """A weight, temperature or cap that makes no sense; the message names the setting."""


def mixture_weights(
    counts: Sequence[int], weights: Sequence[float], *, temperature: float = 1.0, caps: Sequence[int] = ()
) -> list[float]:
    """Times per epoch of each source, from its number of usable samples, its weight and its cap."""
    if not (temperature > 0 and math.isfinite(temperature)):
        raise WeightError(f"temperature: expected a positive number, found {temperature}")
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise WeightError(f"weight: expected a positive number, found {weight}")
    caps = list(caps) or [0] * len(counts)
    for cap in caps:
        if cap < 0:
            raise WeightError(f"cap: expected a number of samples, or 0 for none, found {cap}")
    taken = [weight * count for weight, count in zip(weights, counts, strict=True)]
    if temperature != 1:
        total, shares = sum(taken), [math.pow(n, 1 / temperature) for n in taken]
        taken = [share / sum(shares) * total for share in shares]
    taken = [min(n, cap) if cap else n for n, cap in zip(taken, caps, strict=True)]
    return [n / count for n, count in zip(taken, counts, strict=True)]
