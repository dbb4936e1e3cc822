"""The paper's mixture: its fourteen data sets, as `umit prepare` leaves them below one folder, config.data.root.

get_config("stage1") aligns, get_config("stage2") tunes to instructions; either may be followed by a preset of
configs/meshes.py: "stage2,7b@v5e-256". A source is a folder below the root, named as `umit prepare --list` names the
set; docs/data.md has the commands. One that you cannot get is named in config.data.leave_out.

| what                                             | from                                                             |
| the sets of each stage, the tasks they serve     | the paper, and the table of data of its repository               |
| vision tower frozen in stage 2, trained before   | the paper                                                        |
| 2.5 million English pairs in stage 1             | the paper; PMC-OA is all of them that is published, so fewer     |
| which sets of MedMNIST: all eighteen             | not stated where we could read it: ours                          |
| times an epoch, caps, epochs, patches of a row   | not stated in the paper: ours                                    |
"""

import ml_collections

from configs import stage1_align, stage2_instruct

OFTEN = 3.0  # times an epoch, of a set with fewer than ten thousand samples to train on
CAP = 100_000  # samples an epoch: the small sets are not drowned by half a million questions of one kind
ROW_PATCHES = 14_336  # 3.5 a token: with fewer, images fill a row's patches while half of its tokens are free

STAGE1 = (("pmc_oa", 1.0), ("chimed_vl", 1.0))

STAGE2 = (
    ("vqa_rad", OFTEN, CAP),
    ("path_vqa", 1.0, CAP),
    ("slake", 1.0, CAP),  # questions in two languages, and boxes
    ("chimed_vl", 1.0, CAP),  # its instructions: the captions are no task of this stage
    ("m3d_vqa", 1.0, CAP),
    ("medmnist/pathmnist", 1.0, CAP),
    ("medmnist/chestmnist", 1.0, CAP),  # fourteen questions an image: 1.1 million
    ("medmnist/dermamnist", OFTEN, CAP),
    ("medmnist/octmnist", 1.0, CAP),
    ("medmnist/pneumoniamnist", OFTEN, CAP),
    ("medmnist/retinamnist", OFTEN, CAP),
    ("medmnist/breastmnist", OFTEN, CAP),
    ("medmnist/bloodmnist", 1.0, CAP),
    ("medmnist/tissuemnist", 1.0, CAP),
    ("medmnist/organamnist", 1.0, CAP),
    ("medmnist/organcmnist", 1.0, CAP),
    ("medmnist/organsmnist", 1.0, CAP),
    ("medmnist/organmnist3d", OFTEN, CAP),
    ("medmnist/nodulemnist3d", OFTEN, CAP),
    ("medmnist/adrenalmnist3d", OFTEN, CAP),
    ("medmnist/fracturemnist3d", OFTEN, CAP),
    ("medmnist/vesselmnist3d", OFTEN, CAP),
    ("medmnist/synapsemnist3d", OFTEN, CAP),
    ("iu_xray", OFTEN, CAP),
    ("peir_gross", OFTEN, CAP),
    ("m3d_cap", 1.0, CAP),
    ("rsna", 1.0, CAP),
    ("m3d_seg", 1.0, CAP),
    ("isbi2015", OFTEN, CAP),
)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    stage, _, preset = arg.partition(",")
    if stage == "stage1":
        config = stage1_align.get_config(f"full,{preset}" if preset else "full")
        config.data.sources = STAGE1
    elif stage == "stage2":
        config = stage2_instruct.get_config(preset)
        config.data.sources = STAGE2
    else:
        raise ValueError(f"umit: expected stage1 or stage2, found {stage!r}")
    config.data.row_patches = ROW_PATCHES
    config.epochs = 1.0
    return config
