"""Several processes give the run of one: losses, samples, one program; and go on from each other's checkpoints."""

import json
import shutil

import pytest

from tests.resume.test_kill import finish, start
from tests.train.toy import lines
