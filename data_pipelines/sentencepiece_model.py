"""The file that sentencepiece trains, tokenizer.model, as a protobuf message of the fields that are read or changed.

sentencepiece brings a generated class for it, which refuses every protobuf older than the one it was generated with;
Apache Beam asks for an older one. A message described in a few lines works with all of them: fields that it does not
name are kept as they were read. Names and numbers are those of sentencepiece_model.proto:

| message        | fields                                                |
| ModelProto     | 1 pieces, 2 trainer_spec, 3 normalizer_spec           |
| SentencePiece  | 1 piece, 2 score, 3 type (1, a normal piece, if unset) |
| TrainerSpec    | 4 vocab_size                                          |
| NormalizerSpec | 5 escape_whitespaces                                  |
"""

import functools
from typing import Any

NORMAL = 1  # the type of a piece that was learnt


def parse(data: bytes) -> Any:
    """ModelProto of a file's bytes; `SerializeToString(deterministic=True)` gives them back."""
    return _message().FromString(data)


@functools.cache
def _message() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="umit_sentencepiece_model.proto", package="umit.sentencepiece")
    kinds = descriptor_pb2.FieldDescriptorProto
    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED

    def message(name: str, *fields: tuple[str, int, int, int, dict[str, str]]) -> None:
        made = file.message_type.add(name=name)
        for field, number, kind, label, more in fields:
            made.field.add(name=field, number=number, type=kind, label=label, **more)

    def inside(name: str) -> dict[str, str]:
        return {"type_name": f".{file.package}.{name}"}

    message(
        "SentencePiece",
        ("piece", 1, kinds.TYPE_STRING, one, {}),
        ("score", 2, kinds.TYPE_FLOAT, one, {}),
        ("type", 3, kinds.TYPE_INT32, one, {"default_value": str(NORMAL)}),
    )
    message("TrainerSpec", ("vocab_size", 4, kinds.TYPE_INT32, one, {}))
    message("NormalizerSpec", ("escape_whitespaces", 5, kinds.TYPE_BOOL, one, {}))
    message(
        "ModelProto",
        ("pieces", 1, kinds.TYPE_MESSAGE, many, inside("SentencePiece")),
        ("trainer_spec", 2, kinds.TYPE_MESSAGE, one, inside("TrainerSpec")),
        ("normalizer_spec", 3, kinds.TYPE_MESSAGE, one, inside("NormalizerSpec")),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.ModelProto"))
