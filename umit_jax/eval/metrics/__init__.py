"""Strict metrics over (truth, answer) targets. Each module turns items into {metric name: Statistic}.

| truth                         | module   | metrics                                                    |
| options of a VQA question     | vqa      | closed_accuracy                                            |
| text of a VQA question        | vqa      | token_f1, token_recall, exact_match                        |
| options of any other task     | classify | accuracy, macro_f1                                         |
| text of any other task        | report   | bleu1..bleu4, rouge_l                                      |
| boxes                         | detect   | mean_iou, acc_at_0.5                                       |
| points                        | landmark | mre_mm, mre_mm_parsed, sdr_{2,2.5,3,4}mm, no_spacing       |

An answer of None (unparsed) is wrong, empty or a miss, never left out of a mean.
"""

import dataclasses

from umit_jax.targets import Target


@dataclasses.dataclass(frozen=True)
class Item:
    """One question to score: its truth, the answer (None: unparsed), the language and what was asked."""

    truth: Target
    answer: Target | None
    language: str = "en"
    topic: str | None = None
