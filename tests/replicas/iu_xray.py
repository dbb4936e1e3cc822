"""IU X-Ray in small: R2Gen's annotation file with two views a study, and the OpenI originals in XML."""

import json
from pathlib import Path
from typing import Any

from tests.replicas.pictures import encoded, write_file


def study(id: Any, report: Any, *images: Any) -> dict[str, Any]:
    return {"id": id, "report": report, "image_path": list(images), "split": "train"}


BOTH = "CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"
STUDIES = {
    "train": [
        study("CXR2384_IM-0942", "The heart is XXXX in size.\n  No pneumothorax .", *BOTH),
        study("CXR1_IM-0001", "Clear lungs.", "CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"),  # the second is missing
        study("CXR2_IM-0002", "", *BOTH),
        study("CXR3_IM-0003", "Clear.", "../annotation.json"),
        study("CXR4_IM-0004", "Clear."),
        study("", "Clear.", *BOTH),
        "no study",
        study("CXR2384_IM-0942", "Listed twice.", *BOTH),
    ],
    "val": [study("CXR5_IM-0005", "Low volumes.", "CXR5_IM-0005/0.png")],
    "test": [study("CXR2384_IM-0943", "Same patient again.", "CXR5_IM-0005/1.png")],
}


def r2gen(folder: Path) -> dict[str, Any]:
    root = folder / "iu_xray"
    write_file(root / "annotation.json", json.dumps(STUDIES))
    for i, name in enumerate((*BOTH, "CXR1_IM-0001/0.png", "CXR5_IM-0005/0.png", "CXR5_IM-0005/1.png")):
        write_file(root / "images" / name, encoded(i, "PNG", mode="L"))
    return {"source": folder}


def xml(images: list[str], **sections: str) -> str:
    texts = "".join(f'<AbstractText Label="{label}">{text}</AbstractText>' for label, text in sections.items())
    parents = "".join(f'<parentImage id="{id}"><figureId>F1</figureId></parentImage>' for id in images)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR1"/><MedlineCitation><Article><Abstract>{texts}'
        f"</Abstract></Article></MedlineCitation><MeSH><major>normal</major></MeSH>{parents}</eCitation>"
    )


FINDINGS = "The lungs &amp; heart are XXXX."
REPORTS = {
    1: xml(["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"], COMPARISON="None.", FINDINGS=FINDINGS, IMPRESSION="Normal."),
    2: xml(["CXR2_IM-0652-1001"], FINDINGS="", IMPRESSION="No acute <i>disease</i>."),
    3: xml(["CXR3_IM-1384-1001"], FINDINGS="Clear."),  # the image is missing
    4: xml(["CXR4_IM-2050-1001"], INDICATION="Pain.", FINDINGS=""),
    5: xml([], FINDINGS="Clear.", IMPRESSION="Normal."),
    6: xml(["CXR1_1_IM-0001-3001"], FINDINGS="Cut")[:-30],
    7: xml(["CXR1_1_IM-0001-3001"], FINDINGS="&a;").replace("<eCit", '<!DOCTYPE x [<!ENTITY a "b">]><eCit', 1),
    10: xml(["CXR10_IM-0002-1001", "CXR10_IM-0002-1001"], FINDINGS="Listed twice.", IMPRESSION="Same."),
}


def original(folder: Path) -> dict[str, Any]:
    for number, text in REPORTS.items():
        write_file(folder / "ecgen-radiology" / f"{number}.xml", text)
    names = ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR10_IM-0002-1001")
    for i, name in enumerate(names):
        write_file(folder / "NLMCXR_png" / f"{name}.png", encoded(i, "PNG", mode="L"))
    return {"source": folder}
