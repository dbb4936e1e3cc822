"""Bytes on disk -> pixels with spacing, orientation and intensity window; nothing that identifies a patient passes.

A file that cannot be used raises MediaError with a short fixed reason, so that a source can quarantine and count it.
"""


class MediaError(ValueError):
    """A media file that cannot be used. `reason` is one of a fixed set of short phrases and never quotes the file's
    content: a header's text may name a patient."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
