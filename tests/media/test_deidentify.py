"""Nothing about a patient leaves a header; pixels that carry text are refused; a patient's name is a keyed hash."""

import stat

import pydicom
import pytest

from data_pipelines.media import MediaError
from data_pipelines.media.deidentify import KEY_FILE, burned_in, facts, patient_hash, patient_key, refuse_burned_in

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def header(**elements) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def test_only_codes_of_the_list_and_numbers_pass():
    found = facts(
        header(
            Modality="CT",
            BodyPartExamined="WHOLE BODY",
            ViewPosition="PA",
            SliceThickness="2.5",
            PatientName="Wiktoria^Wanda",
            PatientID="4711",
            StudyDate="20200131",
            InstitutionName="St. Elsewhere",
            SeriesDescription="Wiktoria chest",
        )
    )
    assert found == {"Modality": "CT", "BodyPartExamined": "WHOLEBODY", "ViewPosition": "PA", "SliceThickness": 2.5}


@pytest.mark.parametrize("keyword", ["Modality", "BodyPartExamined", "ViewPosition", "PatientPosition"])
def test_a_name_typed_into_a_technical_field_does_not_pass(keyword):
    assert facts(header(**{keyword: "WIKTORIA"})) == {}


def test_the_allow_list_holds_no_element_that_identifies():
    """dicognito, which changes what identifies, leaves every allowed attribute as it is."""
    anonymizer = pytest.importorskip("dicognito.anonymizer").Anonymizer()
    dataset = header(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        SOPInstanceUID="1.2.3.4",
        PatientName="Wiktoria^Wanda",
        PatientID="4711",
        StudyDate="20200131",
        Modality="CT",
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        ImageLaterality="L",
        Laterality="R",
        PatientPosition="HFS",
        MRAcquisitionType="3D",
        ScanningSequence="SE",
        PhotometricInterpretation="MONOCHROME2",
        Rows=3,
        Columns=4,
        NumberOfFrames=1,
        BitsStored=12,
        SliceThickness=1,
        SpacingBetweenSlices=1,
        KVP=120,
        RepetitionTime=9,
        EchoTime=9,
        FlipAngle=9,
        MagneticFieldStrength=3,
    )
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    before = facts(dataset)
    name = str(dataset.PatientName)
    anonymizer.anonymize(dataset)
    assert str(dataset.PatientName) != name  # the oracle is awake
    assert facts(dataset) == before
    assert len(before) == 20


@pytest.mark.parametrize(
    ("elements", "state"),
    [
        ({"Modality": "CT"}, "no"),
        ({"Modality": "CT", "BurnedInAnnotation": "YES"}, "yes"),
        ({"Modality": "US"}, "likely"),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, "no"),
        ({"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE}, "likely"),
        ({"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE + ".4"}, "likely"),
        ({"Modality": "CR", "ConversionType": "DF"}, "likely"),
    ],
)
def test_burned_in_text_is_told_by_tag_or_kind(elements, state):
    assert burned_in(header(**elements)) == state


def test_burned_in_text_is_refused_unless_the_likely_is_let_through():
    refuse_burned_in("no")
    refuse_burned_in("likely", ("yes",))
    refuse_burned_in("yes", ())
    with pytest.raises(MediaError, match="likely"):
        refuse_burned_in("likely")
    with pytest.raises(MediaError, match="burned-in annotation"):
        refuse_burned_in("yes", ("yes",))


def test_the_key_is_made_once_beside_the_source_for_its_owner_alone(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    key = patient_key(source, tmp_path / "cache")
    assert patient_key(source, tmp_path / "cache") == key
    assert stat.S_IMODE((source / KEY_FILE).stat().st_mode) == 0o600
    assert not (tmp_path / "cache").exists()


def test_the_key_of_a_source_that_cannot_be_written_lies_in_the_cache(tmp_path):
    source = tmp_path / "not_a_folder"
    source.write_text("")  # a file: nothing can be created beneath it, even by root
    key = patient_key(source, tmp_path / "cache")
    assert patient_key(source, tmp_path / "cache") == key
    assert patient_key(None, tmp_path / "cache") != key


def test_a_damaged_key_is_an_error(tmp_path):
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        patient_key(tmp_path, tmp_path)


def test_the_hash_depends_on_key_and_patient_and_shows_neither():
    digest = patient_hash(b"k" * 32, "4711")
    assert digest == patient_hash(b"k" * 32, " 4711 ")
    assert len({digest, patient_hash(b"x" * 32, "4711"), patient_hash(b"k" * 32, "4712")}) == 3
    assert len(digest) == 16
    assert "4711" not in digest
