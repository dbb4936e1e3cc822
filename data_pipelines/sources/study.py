"""Study: what is known of one patient's examination, whatever data set it came from; records are derived from it.

A study is a set of views (what is shown: one image, or one volume as slices), each with its truth in its own pixels or
voxels. Names are keys of prompts/terms.yaml. Coordinates count from the edge of the first pixel or voxel, so that
pixel i covers [i, i + 1).
"""

import dataclasses
from collections.abc import Mapping

from data_pipelines.record import Media

Coordinates = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is true of a view besides geometry. An empty field is not known, and nothing is asked about it.

    plane: of a slice. slice_of: its number from 1 and how many there are. view: of a projection. region: part of the
    body. organ: what is in the centre of a crop. visible, absent: structures that are, and that are not, in the view.
    findings: value "no", "yes", "left", "right" or "both" (the patient's sides). sides: side of a structure. enlarged:
    whether it is. counts: how many there are. places: where it is, one of the study's choices for that key.
    volumes_ml, diameters_mm, heights_mm: measurements.
    """

    plane: str = ""
    slice_of: tuple[int, int] | None = None
    view: str = ""
    region: str = ""
    organ: str = ""
    visible: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    findings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    enlarged: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    places: Mapping[str, str] = dataclasses.field(default_factory=dict)
    volumes_ml: Mapping[str, float] = dataclasses.field(default_factory=dict)
    diameters_mm: Mapping[str, float] = dataclasses.field(default_factory=dict)
    heights_mm: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class View:
    """One thing that is shown. key: unique in the study ("frontal", "axial_12"). boxes: for each name one box or
    several, (x1, y1, x2, y2) or (x1, y1, z1, x2, y2, z2), half-open. points: (x, y) or (x, y, z). how: how the view
    was made and its truth derived, for the record's `source`."""

    key: str
    media: Media
    boxes: Mapping[str, tuple[Coordinates, ...]] = dataclasses.field(default_factory=dict)
    points: Mapping[str, Coordinates] = dataclasses.field(default_factory=dict)
    facts: Facts = dataclasses.field(default_factory=Facts)
    how: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """id: unique in the data set, no patient's identifier. patient_id: keyed hash. choices: the options of a
    multiple-choice question by topic ("modality", "plane", "view", "region", "organ", or a key of Facts.places), the
    same for a whole data set. reports, comparisons: keys of views that are reported together, or compared.
    The rest goes into every record as it is."""

    id: str
    dataset: str
    split: str
    patient_id: str
    views: tuple[View, ...]
    label_kind: str
    license: str
    source: str
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    reports: tuple[tuple[str, ...], ...] = ()
    comparisons: tuple[tuple[str, str], ...] = ()
    synthetic: bool = False
    heldout: str = "patient"

    def view(self, key: str) -> View:
        for view in self.views:
            if view.key == key:
                return view
        raise KeyError(f"study {self.id!r} has no view {key!r}; it has {', '.join(v.key for v in self.views)}")
