"""Metrics over (truth, answer) targets. Each module turns items into {metric name: Statistic}; modes.py lists them.

An answer of None (unparsed) is wrong, empty or a miss, never left out of a mean, unless a named mode says so.
"""

import dataclasses
from collections.abc import Sequence

from umit_jax.targets import Target


@dataclasses.dataclass(frozen=True)
class Item:
    """One question to score: its truth, the answer (None: unparsed), the language and what was asked.

    text: what was said, as it is; read by the modes that follow other projects, whose rules are about texts. scores:
    probability of each option, or confidence of each box of the answer in their order; None where unknown.
    dataset, modality (DICOM's code) and rare_words (of a report, see metrics/r2gen.py) are those of the prediction.
    """

    truth: Target
    answer: Target | None
    language: str = "en"
    topic: str | None = None
    text: str = ""
    scores: Sequence[float] | None = None
    dataset: str = ""
    modality: str | None = None
    rare_words: Sequence[str] = ()
