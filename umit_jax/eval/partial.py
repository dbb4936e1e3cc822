"""The answers of an evaluation that is not finished (umit_jax/journal.py): {"index", "id", "answer"} each, in the order
in which they were generated. A batch reaches the disk before the next is generated. The whole file goes when the
predictions have their final name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from umit_jax.infer.buckets import Answer
from umit_jax.journal import Journal


class PartialAnswers:
    """known: answers by index, those of an earlier process included. ids: of the records, by index. key: a hash of what
    the answers depend on (weights, records, settings)."""

    def __init__(self, path: Path, key: str, ids: Sequence[str]) -> None:
        self._ids = ids
        self._journal = Journal(path, key, "answers of another model or of other records")
        self.known: dict[int, Answer] = {
            entry["index"]: Answer(*entry["answer"])
            for entry in self._journal.entries
            if set(entry) == {"index", "id", "answer"}
            and 0 <= entry["index"] < len(ids)
            and ids[entry["index"]] == entry["id"]
        }

    def add(self, answers: Mapping[int, Answer]) -> None:
        """Keeps the answers of one batch."""
        self.known.update(answers)
        self._journal.add([{"index": i, "id": self._ids[i], "answer": answer} for i, answer in answers.items()])

    def remove(self) -> None:
        self._journal.remove()
