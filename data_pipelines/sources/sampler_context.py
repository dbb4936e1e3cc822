"""What the sampler's readers of packages share: pseudonyms, options, licences, and where bad files are noted."""

import dataclasses
from collections.abc import Callable, Mapping

from data_pipelines.media.deidentify import patient_hash
from data_pipelines.sources.study import Study


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A study, and at most how many of its questions on one topic are taken, by task."""

    study: Study
    per_topic: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Context:
    """table: sampler.yaml. quarantine(id, reason) notes an input that cannot be used."""

    key: bytes
    table: Mapping
    quarantine: Callable[[str, str], None]

    def patient(self, package: str, identity: str) -> str:
        return patient_hash(self.key, package, identity)

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {topic: tuple(options) for topic, options in self.table["choices"].items()}

    def limits(self, kind: str) -> dict[str, int]:
        """How many questions on one topic a study of this kind gives, by task."""
        return self.table["limits"][kind]

    def license(self, package: str) -> str:
        return self.table["packages"].get(package, {"license": "MIT"})["license"]
