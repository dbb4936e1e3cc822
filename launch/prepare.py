"""`umit prepare NAME`: raw files of one dataset -> Record shards and manifest.json."""

import argparse
import importlib
import pathlib
import sys
from typing import Any

from data_pipelines.sources.catalogue import Entry, catalogue
from launch import layout, workdir
from launch.cli import UsageError, nearest

_FOLDERS = "dicom_folder, nifti_folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="dataset, one of --list; tfds:NAME for one of TensorFlow Datasets")
    parser.add_argument("--list", action="store_true", help="list the datasets: licence, where to get it, counts")
    parser.add_argument("--source", type=pathlib.Path, help="directory with the raw files")
    parser.add_argument(
        "--out", type=workdir.local, help="directory for the shards; must not exist, or be a former run"
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (default 0)")
    parser.add_argument("--labels", type=pathlib.Path, help=f"CSV of labels ({_FOLDERS})")
    parser.add_argument(
        "--subset", action="append", metavar="NAME", help="only this part of the data set; repeatable (--list)"
    )
    parser.add_argument("--size", type=int, help="pixels of a side, where a set comes in several sizes (medmnist)")
    parser.add_argument("--annotator", help="whose points are the truth: mean, senior or junior (isbi2015)")
    parser.add_argument(
        "--negatives",
        action="store_true",
        default=None,
        help="ask images without the finding for its boxes too, as the challenge does (rsna)",
    )
    parser.add_argument("--task", help="task of the rows that state none (jsonl)")
    parser.add_argument("--images", type=pathlib.Path, help="folder of the images, where it is not beside the texts")
    parser.add_argument("--patients", type=int, help="number of patients (phantom)")
    parser.add_argument("--keep-raw", type=pathlib.Path, help="folder where the DICOM and NIfTI files stay (phantom)")
    parser.add_argument(
        "--cache", type=pathlib.Path, help="where fetched or unpacked files are kept (sampler, medmnist)"
    )
    parser.add_argument("--modality", help="DICOM code of the images, such as CT or MR (nifti_folder, tfds)")
    layout.add_arguments(parser, _FOLDERS)
    parser.add_argument("--license", help=f"licence noted in every record ({_FOLDERS}, tfds)")
    parser.add_argument(
        "--allow-burned-in",
        action="store_true",
        default=None,
        help="accept images that may show burned-in text (dicom_folder)",
    )
    parser.add_argument(
        "--duplicates",
        choices=("report", "drop"),
        default="report",
        help="drop: leave out repeated questions, and training images that are (nearly) those of a held-out split",
    )
    parser.add_argument(
        "--templates", type=pathlib.Path, help="YAML file that words the questions instead of ours (docs/templates.md)"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes of --runner direct (default 0: one a core)")
    parser.add_argument(
        "--runner",
        default="direct",
        help="runner of Apache Beam: direct for this machine (default), or FlinkRunner, SparkRunner, DataflowRunner",
    )
    parser.add_argument(
        "--runner-flag", action="append", default=[], metavar="FLAG", help="a pipeline option of the runner; repeatable"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.list:
        return _list()
    if args.name is None:
        raise UsageError("name a dataset, or --list")
    name, colon, dataset = args.name.partition(":")
    if name not in catalogue() or (colon and name != "tfds"):
        hint = nearest(args.name, list(catalogue()))
        raise UsageError(f"unknown dataset {args.name!r}{hint}; see umit prepare --list")
    if args.out is None:
        raise UsageError("--out is required")
    options = _options(args, catalogue()[name]) | ({"dataset": dataset} if dataset else {})
    if args.workers < 0:
        raise UsageError(f"--workers: expected 0 or more, found {args.workers}")
    if args.runner != "direct" and not args.runner.lower().endswith("runner"):
        raise UsageError(f"--runner: expected direct or a runner of Apache Beam, as FlinkRunner, found {args.runner!r}")
    if args.templates and not args.templates.is_file():
        raise UsageError(f"--templates: no such file: {args.templates}")
    manifest = _prepare(name, args, options)
    _tell(name, manifest)
    keys = ("records", "quarantined", "duplicates", "leaks", "near_duplicates", "unexpected_counts")
    return {key: manifest[key] for key in keys}


def _prepare(name: str, args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    from data_pipelines import preparation
    from data_pipelines.pipeline import beam_flags
    from data_pipelines.prompts import using_templates

    module = importlib.import_module(f"data_pipelines.sources.{name}")
    if hasattr(module, "prepare"):  # the sampler fetches what it reads, package by package
        for flag, usual in (("duplicates", "report"), ("workers", 0), ("runner", "direct"), ("runner_flag", [])):
            if getattr(args, flag) != usual:
                raise UsageError(f"--{flag.replace('_', '-')}: has no meaning for {name}")
        with using_templates(args.templates):
            return module.prepare(options.pop("source", None), args.out, **options)
    return preparation.prepare(
        module.converter(**options),
        args.out,
        duplicates=args.duplicates,
        templates=args.templates,
        pipeline=beam_flags(args.runner, args.workers, args.runner_flag),
    )


def _tell(name: str, manifest: dict[str, Any]) -> None:
    """On stderr, a line for each count that is not the published one and for each reason to leave something out."""
    for key, count in manifest["unexpected_counts"].items():
        print(f"umit prepare: {name}: {key}: published {count['expected']}, found {count['found']}", file=sys.stderr)
    for reason, number in manifest["quarantined_reasons"].items():
        print(f"umit prepare: {name}: left out {number}: {reason}", file=sys.stderr)


def _list() -> dict[str, Any]:
    for name, entry in catalogue().items():
        print(entry.listed(name))
    return {"datasets": list(catalogue())}


def _options(args: argparse.Namespace, entry: Entry) -> dict[str, Any]:
    """The flags given that this dataset takes. Raises UsageError for one it does not, and for one it misses."""
    every = {flag for other in catalogue().values() for flag in other.flags}
    given = {flag: getattr(args, flag) for flag in sorted(every) if getattr(args, flag) is not None}
    for flag in given:
        if flag not in entry.flags:
            raise UsageError(f"--{flag.replace('_', '-')}: has no meaning for {args.name}")
    for flag in ("source", "labels", "images"):
        if flag in given and not given[flag].exists():
            raise UsageError(f"--{flag}: no such file or directory: {given[flag]}")
    for flag in entry.required:
        if flag not in given:
            raise UsageError(f"--{flag.replace('_', '-')} is required for {args.name}")
    return given
