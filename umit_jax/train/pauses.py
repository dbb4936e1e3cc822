"""What fails may work a little later: a disk that somebody cleans, a bucket that comes back."""

from collections.abc import Iterator

_FIRST, _LONGEST = 1.0, 30.0


def pauses(patience: float) -> Iterator[float]:
    """Seconds to wait before each further try, twice as long each time, until `patience` seconds are used up."""
    pause = _FIRST
    while patience > 0:
        yield min(pause, patience)
        patience -= pause
        pause = min(2 * pause, _LONGEST)
