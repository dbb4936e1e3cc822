"""Tokenizers with Qwen2-VL's special tokens: a sentencepiece one trained on the corpus, or any tokenizer.json.

Whatever its origin, a tokenizer directory holds tokenizer.json (Hugging Face fast format), which is what encodes and
decodes here, so that an export says the same ids. tokenizer.model lies beside it when sentencepiece made it.

The sentencepiece model is a unigram model with byte fallback and identity normalisation, adjusted after training so
that every text comes back exactly and both libraries agree on every id:
- pieces hold plain spaces, not U+2581, so that U+2581 itself is a character like any other (it falls back to bytes);
- "<" and the newline stand alone, so that no text can spell a byte piece ("<0x0A>") and no piece crosses a line;
- scores are multiples of 1/32, so that sums are exact and ties fall alike in float32 and float64.
"""

import hashlib
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.sentencepiece_model import NORMAL, parse

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Tokens that stand in what people say, because boxes are spoken with them; all other special ones steer the model.
SPOKEN_TOKENS = SPECIAL_TOKENS[3:9]
EOS_TOKENS = ("<|im_end|>", "<|endoftext|>")
TEMPLATE_FILE = "chat_template.jinja"
FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", TEMPLATE_FILE)
_SCORE_STEP = 1 / 32
_WORD_LENGTH, _PHRASE_LENGTH = 16, 48  # most characters of a piece


class TokenizerError(ValueError):
    """A tokenizer that cannot be trained or loaded; one line naming the file or what is missing."""


class Tokenizer:
    """Text <-> ids. Special tokens in a text are recognised wherever they stand.

    chat_template: the format of conversations that came with it, as a Jinja template, or None. template_variables: the
    names of special tokens that such a template may ask for.
    """

    def __init__(self, backend: Any, files: dict[str, bytes], origin: str) -> None:
        self._backend, self._files = backend, files
        self.chat_template = files[TEMPLATE_FILE].decode() if TEMPLATE_FILE in files else None
        config = json.loads(files["tokenizer_config.json"])
        names = {key: config.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        names = {key: name.get("content") if isinstance(name, dict) else name for key, name in names.items()}
        self.template_variables = {key: name for key, name in names.items() if name}
        added = backend.get_added_tokens_decoder().items()
        control = {index: token.content for index, token in added if token.special or token.content in SPECIAL_TOKENS}
        control = {index: name for index, name in control.items() if name not in SPOKEN_TOKENS}
        self._control_ids = frozenset(control)
        longest_first = sorted(control.values(), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.special_ids = {name: backend.token_to_id(name) for name in SPECIAL_TOKENS}
        missing = [name for name, index in self.special_ids.items() if index is None]
        if missing:
            raise TokenizerError(f"{origin}: special tokens missing: {' '.join(missing)}")

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return tuple(self.special_ids[name] for name in EOS_TOKENS)

    @property
    def fingerprint(self) -> str:
        """sha256 of tokenizer.json and the chat template: with the same one, conversations have the same ids."""
        digest = hashlib.sha256(self._files["tokenizer.json"])
        if self.chat_template is not None:
            digest.update(self.chat_template.encode())
        return digest.hexdigest()

    def token_id(self, name: str) -> int:
        index = self._backend.token_to_id(name)
        if index is None:
            raise TokenizerError(f"token {name!r}: not in the vocabulary")
        return index

    def encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def control_tokens(self, text: str) -> list[tuple[int, int]]:
        """Where in a text the names of control tokens stand: special tokens, but for those of boxes."""
        return [match.span() for match in self._control.finditer(text)]

    def count_control(self, ids: Sequence[int]) -> int:
        """How many of the ids are control tokens."""
        return sum(index in self._control_ids for index in ids)

    def spell(self, text: str) -> list[int]:
        """Ids of a text in which the name of a token is a text like any other. Raises TokenizerError if the vocabulary
        has the name as an ordinary piece."""
        backend = self._backend
        text = backend.normalizer.normalize_str(text) if backend.normalizer else text
        parts = backend.pre_tokenizer.pre_tokenize_str(text) if backend.pre_tokenizer else [(text, (0, len(text)))]
        ids = [token.id for part, _ in parts for token in backend.model.tokenize(part)]
        if self.count_control(ids):
            raise TokenizerError(f"{text!r}: cannot be spelled in this vocabulary")
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, directory: str | Path) -> None:
        """Writes the files it was loaded from, byte for byte."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in self._files.items():
            (directory / name).write_bytes(data)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer of a directory (or of a tokenizer.json file). Raises TokenizerError."""
    import tokenizers

    directory = Path(directory)
    directory = directory.parent if directory.name == "tokenizer.json" else directory
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(f"{directory}: no tokenizer.json")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise TokenizerError(f"{path}: cannot read: {str(error).splitlines()[0]}") from error
    files = {name: (directory / name).read_bytes() for name in FILES if (directory / name).is_file()}
    files.setdefault("tokenizer_config.json", _json_bytes(_config()))
    if (template := _chat_template(directory)) is not None:
        files[TEMPLATE_FILE] = template.encode()
    try:
        return Tokenizer(backend, files, str(path))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise TokenizerError(f"{directory / 'tokenizer_config.json'}: cannot read: {error}") from error


def _chat_template(directory: Path) -> str | None:
    """The conversation format of a directory: chat_template.jinja, else chat_template.json, else the entry of
    tokenizer_config.json. Of several named ones the default."""
    if (directory / TEMPLATE_FILE).is_file():
        try:
            return (directory / TEMPLATE_FILE).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"{directory / TEMPLATE_FILE}: cannot read: {error}") from error
    for path in (directory / "chat_template.json", directory / "tokenizer_config.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8")).get("chat_template") if path.is_file() else None
        except (ValueError, AttributeError) as error:
            raise TokenizerError(f"{path}: cannot read: {error}") from error
        if isinstance(found, list):
            found = {entry["name"]: entry["template"] for entry in found}.get("default")
        if isinstance(found, str):
            return found
    return None


def train_sentencepiece(
    texts: Iterable[str], out_dir: str | Path, vocab_size: int = 8192, *, phrases: bool = False
) -> Tokenizer:
    """Trains on `texts` (special tokens in them are ignored), writes the directory and returns the tokenizer.

    vocab_size counts everything: 15 special, 256 bytes, pieces; a small corpus gives fewer. phrases: pieces may hold
    several words ("in the left lung"), which shortens a corpus of repeated wordings several times over; without it a
    piece ends at a space. The same texts in the same order give the same files.
    """
    import sentencepiece

    smallest = len(SPECIAL_TOKENS) + 1 + 256
    if vocab_size <= smallest:
        raise TokenizerError(f"vocab_size: expected more than {smallest} (special and bytes), found {vocab_size}")
    lines, model = _lines(texts), io.BytesIO()
    first = next(lines, None)
    if first is None:
        raise TokenizerError("texts: nothing to train a tokenizer on")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=itertools.chain([first], lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            split_digits=True,
            split_by_whitespace=not phrases,
            split_by_unicode_script=not phrases,
            max_sentencepiece_length=_PHRASE_LENGTH if phrases else _WORD_LENGTH,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=0.9999,
            max_sentence_length=1 << 20,
            num_threads=1,  # the sums of several threads come in any order
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            user_defined_symbols=list(SPECIAL_TOKENS),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(f"sentencepiece: {str(error).splitlines()[-1]}") from error
    proto = _adjusted(model.getvalue())
    files = {
        "tokenizer.model": proto.SerializeToString(deterministic=True),
        "tokenizer.json": _json_bytes(_fast_format(proto)),
        "tokenizer_config.json": _json_bytes(_config()),
    }
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out_dir / name).write_bytes(data)
    return load_tokenizer(out_dir)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines without special tokens and without what the trainer reserves for itself."""
    for text in texts:
        for name in SPECIAL_TOKENS:
            text = text.replace(name, "\n")
        for line in text.replace("\u2581", "\n").replace("\0", "\n").split("\n"):
            if line.strip():
                yield line


def _adjusted(data: bytes) -> Any:
    """The trained model with the three changes of the module's docstring, as a ModelProto."""
    proto, kept = parse(data), []
    for piece in proto.pieces:
        if piece.type == NORMAL:
            piece.piece = piece.piece.replace("\u2581", " ")
            piece.score = round(piece.score / _SCORE_STEP) * _SCORE_STEP
            if len(piece.piece) > 1 and "<" in piece.piece:
                continue
        kept.append(piece)
    kept = [type(piece).FromString(piece.SerializeToString()) for piece in kept]
    del proto.pieces[:]
    proto.pieces.extend(kept)
    proto.trainer_spec.vocab_size = len(kept)
    proto.normalizer_spec.escape_whitespaces = False
    return proto


def _fast_format(proto: Any) -> dict[str, Any]:
    """tokenizer.json of an adjusted model."""
    added = [
        {"id": 1 + i, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, name in enumerate(SPECIAL_TOKENS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": "<"}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": True,
        },
    }


def _config() -> dict[str, Any]:
    """tokenizer_config.json, as AutoTokenizer reads it."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "additional_special_tokens": list(SPECIAL_TOKENS),
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "model_max_length": 32768,
    }


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
