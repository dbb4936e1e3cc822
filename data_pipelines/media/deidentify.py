"""De-identification by allow-list: what may leave a DICOM header, and how a patient is named afterwards.

After the idea of PS3.15's basic profile, turned round: nothing is removed, only what is named here is taken. A text
passes only if it is one of a closed list of codes, so that a name typed into a technical field does not; the rest are
numbers. Names, ids, dates, times, UIDs, institutions, device names, comments and overlays have no way out.

| what                | how it leaves                                                                              |
| technical codes     | modality, body part, view, laterality, ...: the lists in allowed.yaml                      |
| technical numbers   | field strength, echo time, slice thickness, ...: the same file                             |
| the patient         | HMAC-SHA256 with a key that stays beside the source (or in the cache), mode 0600           |
| pixels              | refused where text is, or is likely to be, burned in (see burned_in)                       |
"""

import hashlib
import hmac
import math
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pydicom
import yaml

from data_pipelines.media import MediaError

KEY_FILE = ".umit_patient_key"
_KEY_BYTES = 32

_ALLOWED = yaml.safe_load(Path(__file__).with_name("allowed.yaml").read_text())
FACTS = {keyword: frozenset(str(codes).split()) for keyword, codes in _ALLOWED["codes"].items()}
NUMBERS = frozenset(_ALLOWED["numbers"].split())

_NAMING = (
    *("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName", "ResponsiblePerson"),
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate", "ReferringPhysicianName"),
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and its multi-frame kinds .1 to .4
_SCREENS = ("US", "IVUS", "BDUS", "ES")  # machines that draw the patient's name into the picture
_DIGITISED = ("DV", "DI", "DF", "SI", "SD")  # ConversionType: video, film or scan made into an image


def facts(dataset: pydicom.Dataset) -> dict[str, str | float]:
    """The allowed attributes of a header: {keyword: code in capitals without spaces or underscores, or number}.
    An attribute that is absent, empty, multi-valued or not in its list of codes is left out."""
    found: dict[str, str | float] = {}
    for keyword, codes in FACTS.items():
        value = _plain(dataset, keyword)
        code = value.upper().replace(" ", "").replace("_", "").replace("^", "") if isinstance(value, str) else None
        if code in codes:
            found[keyword] = code
    for keyword in sorted(NUMBERS):
        value = _plain(dataset, keyword)
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            found[keyword] = number
    return found


def _plain(dataset: pydicom.Dataset, keyword: str) -> object:
    try:
        value = dataset.get(keyword)
    except Exception:  # an element whose bytes do not fit its type raises on first sight: as good as absent
        return None
    return str(value) if isinstance(value, str) else value


def naming_words(dataset: pydicom.Dataset) -> frozenset[str]:
    """Words of a header that name the patient or the examination, in lower case, for comparing only: of names those
    with four letters or more, ids and dates as they are."""
    words: set[str] = set()
    for keyword in _NAMING:
        for value in str(_plain(dataset, keyword) or "").lower().replace("\\", " ").split():
            words.update(part for part in value.replace("=", "^").split("^") if len(part) >= 4)
    return frozenset(words)


def burned_in(dataset: pydicom.Dataset) -> str:
    """ "yes", "no" or "likely": whether the pixels carry text about the patient. The header's own word decides; without
    it, screens (ultrasound, endoscopy), secondary captures and digitised film are likely to."""
    stated = str(_plain(dataset, "BurnedInAnnotation") or "").strip().upper()
    if stated in ("YES", "NO"):
        return stated.lower()
    sop_class = str(_plain(dataset, "SOPClassUID") or "")
    screen = str(_plain(dataset, "Modality") or "").strip().upper() in _SCREENS
    captured = sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + ".")
    digitised = str(_plain(dataset, "ConversionType") or "").strip().upper() in _DIGITISED
    return "likely" if screen or captured or digitised else "no"


def refuse_burned_in(state: str, refused: Sequence[str] = ("yes", "likely")) -> None:
    """Raises MediaError for an image whose burned_in state is among the refused. A source whose pixels somebody has
    looked at may refuse the stated ("yes") alone; what never leaves the machine needs no refusal."""
    if state in refused:
        reasons = {"likely": "burned-in annotation likely (ultrasound, endoscopy, secondary capture or film)"}
        raise MediaError(reasons.get(state, "burned-in annotation"))


def patient_key(beside: Path | None, cache: Path) -> bytes:
    """The secret key for a source: read from, or created in, the source's folder with mode 0600; where that folder
    cannot be written (or there is none), in the cache."""
    folders = (
        [cache] if beside is None else [beside, cache / hashlib.sha256(str(beside.resolve()).encode()).hexdigest()]
    )
    for folder in folders:
        if (folder / KEY_FILE).is_file():
            return _read_key(folder / KEY_FILE)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=KEY_FILE) as file:  # created with mode 0600
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.link(file.name, folder / KEY_FILE)  # whole or not at all, and never over another's
        except OSError:
            if not (folder / KEY_FILE).is_file():
                continue
        return _read_key(folder / KEY_FILE)
    raise OSError(f"{KEY_FILE}: cannot write the patient key in {' or '.join(str(f) for f in folders)}")


def _read_key(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ValueError(f"{path}: expected a patient key of {_KEY_BYTES} bytes, found {len(key)}")
    return key


def patient_hash(key: bytes, *identity: str) -> str:
    """16 hex digits that name a patient and tell nothing without the key."""
    message = "\x1f".join(part.strip() for part in identity).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:16]
