"""Many prompts of any size -> a handful of static shapes, each compiled once, and their answers in the given order.

Prompts are split by size into at most `shapes` groups, chosen to pad least and not to make many small batches; a
group's shape is its largest prompt. Questions about the same images share a prefix: everything up to the last vision
token, which is read once for all of them where that is less work (evaluation sets ask up to twenty questions an image).
Within a group, prompts with the same limit on new tokens go together, so that one long report does not keep a row of
one-word answers waiting. Rows of one batch are fewer where images are large: attention scores grow with the square,
and keys and values with what is cached.

On a mesh every process runs the same batches and builds the prompts of its own rows only, the next batch's while this
one is generated; every process gets all answers.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from umit_jax.batch import Batch, empty_batch
from umit_jax.infer.generate import Generated, Rest, generate, layers_apart, prefill_prefix
from umit_jax.infer.progress import Progress
from umit_jax.infer.sampling import GREEDY, Sampling
from umit_jax.infer.score import Options, pack, slots_of
from umit_jax.model.config import ModelConfig
from umit_jax.parallel.barrier import compiled_together
from umit_jax.parallel.mesh import from_own_rows, own_rows, row_shards

_ROUND = 16  # tokens and patches of a shape are multiples of this, so that close sizes count as one
_MOST_SCORES = 2**23  # of one batch, for each head: 32 MB in float32
_MOST_SLOTS = 2**14  # prompt tokens that one batch caches: a gigabyte of keys and values for 7b in bfloat16
_KINDS = 256  # different sizes between which groups are cut; where there are more, close ones count as one
_STEP = 64  # prompt tokens that cost as much as reading all weights for one more token of a batch (more on a TPU)


class Prompt(Protocol):
    """One prompt as numpy arrays, unpadded; see batch.Batch. vision_index_S counts the prompt's own merged patches."""

    tokens_S: np.ndarray
    positions_S3: np.ndarray
    patches_PC: np.ndarray
    patch_hw_P2: np.ndarray
    patch_segments_P: np.ndarray
    vision_index_S: np.ndarray


class Window(NamedTuple):
    """Prompts by number. first: one for each prefix that is read at once, none where prompts are read whole. batches:
    those that are then answered together."""

    first: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Windows that share their shapes. tokens, patches: of what is read first, `rows` whole prompts or `prefixes`
    prefixes. rest: tokens after a prefix, in batches of `rows` prompts; 0 where prompts are read whole. new_tokens: the
    largest limit among them."""

    windows: tuple[Window, ...]
    rows: int
    tokens: int
    patches: int
    new_tokens: int
    prefixes: int = 0
    rest: int = 0

    @property
    def prompts(self) -> tuple[int, ...]:
        return tuple(number for numbers in self.batches() for number in numbers)

    def batches(self) -> list[tuple[int, ...]]:
        return [numbers for window in self.windows for numbers in window.batches]


class Step(NamedTuple):
    """One thing to run, on these prompts: reading the prefixes with which they begin, or answering them."""

    bucket: Bucket
    numbers: tuple[int, ...]
    first: tuple[int, ...]  # as in Window
    reads: bool


class Answer(NamedTuple):
    """tokens: without the one that ended it. logps: their log-probabilities. options: that of each option, or None."""

    tokens: list[int]
    logps: list[float]
    options: list[float] | None


def answer_all(
    config: ModelConfig,
    params: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int | Sequence[int],
    eos_ids: Sequence[int],
    options: Sequence[Sequence[Sequence[int]]] | None = None,
    keys_N2: np.ndarray | None = None,
    rows: int = 32,
    shapes: int = 4,
    compute_dtype: str = "float32",
    sampling: Sampling = GREEDY,
    ended: Callable[[list[int]], bool] | None = None,
    mesh: Mesh | None = None,
    known: Mapping[int, Answer] | None = None,
    report: Callable[[dict[int, Answer]], None] = lambda _: None,
) -> list[Answer]:
    """The answer to each prompt.

    prompts: read one by one as they are needed; where they have attributes sizes_N2 and prefixes_N2 (see `sizes` and
    `prefixes`), none is read for these, and where they have a method text(number), it is asked for prompts of which no
    pixel is needed. max_new_tokens: one limit for all, or one each. options: of each prompt, the answers whose
    likelihood is wanted, as token ids with their end token, or none. keys_N2: of random numbers (sampling.row_keys).
    rows: most prompts in a batch. shapes: most shapes, each of which costs two to four compilations, and on a CPU one
    for each number of rows that a batch shrinks to and two for each room that its cache grows to; with one, nothing is
    shared. ended: see generate. mesh: over which params lie; a batch then has a multiple of its rows. known: answers by
    number that an earlier call reported (the first process's count): a batch of which all are known is not generated
    again, and the others are the same batches as they would be without. report: called with the answers of each batch
    as soon as they are there.
    """
    known = known or {}
    there = _agreed(np.array([i in known for i in range(len(prompts))], bool))
    answers = [known.get(i, Answer([], [], None)) for i in range(len(prompts))]
    limits_N = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(prompts))
    shards = 1 if mesh is None else row_shards(mesh)
    sizes_N2, prefixes_N2 = sizes(prompts), prefixes(prompts)
    buckets = plan(sizes_N2, limits_N, rows=rows, shapes=shapes, shards=shards, prefixes_N2=prefixes_N2)
    work = list(_steps(buckets, there))
    progress = Progress(len(prompts), sum(len(step.numbers) for step in work if not step.reads))
    prefix, layers = None, layers_apart(config, params) if work else None
    with contextlib.closing(progress):
        built = _ahead(prompts, work, prefixes_N2, config.vision.patch_values, mesh)
        for (bucket, numbers, first, reads), batch in zip(work, built, strict=True):
            if reads:
                prefix = compiled_together(
                    prefill_prefix, config, params, batch, compute_dtype=compute_dtype, mesh=mesh
                )
                continue
            found = generate(
                config,
                params,
                batch,
                prefix=prefix if first else None,
                layers=layers,
                max_new_tokens=bucket.new_tokens,
                eos_ids=eos_ids,
                limits_B=_rows(limits_N, numbers, bucket.rows),
                compute_dtype=compute_dtype,
                sampling=sampling,
                keys_B2=None if keys_N2 is None else _rows(keys_N2, numbers, bucket.rows),
                options=None if options is None else _options(options, bucket, numbers),
                ended=ended,
                mesh=mesh,
            )
            counts = [len(options[number]) if options is not None else 0 for number in numbers]
            new = {number: _answer(found, row, counts[row]) for row, number in enumerate(numbers)}
            for number, answer in new.items():
                answers[number] = answer
            report(new)
            progress.update(len(numbers), sum(len(answer.tokens) for answer in new.values()))
    return answers


def _agreed(known_N: np.ndarray) -> np.ndarray:
    """What the first process knows, which may be the only one that has the files."""
    return np.asarray(multihost_utils.broadcast_one_to_all(known_N)) if jax.process_count() > 1 else known_N


def _rows(values_N: np.ndarray, numbers: Sequence[int], rows: int) -> np.ndarray:
    """The values of a batch, and zeros for its padding."""
    out = np.zeros((rows, *values_N.shape[1:]), values_N.dtype)
    out[: len(numbers)] = values_N[list(numbers)]
    return out


def _options(options: Sequence[Sequence[Sequence[int]]], bucket: Bucket, numbers: Sequence[int]) -> Options | None:
    """The options of a batch in the one shape of its bucket; None where it has none."""
    if not any(options[number] for number in numbers):
        return None
    most = max(len(options[number]) for number in bucket.prompts)
    slots = max(slots_of(options[number]) for number in bucket.prompts)
    return pack([options[n] for n in numbers], bucket.rows, most, max(_ROUND, -(-slots // _ROUND) * _ROUND))


def _answer(found: Generated, row: int, options: int) -> Answer:
    length = int(found.lengths_B[row])
    scored = None if found.options_BO is None or not options else found.options_BO[row, :options].tolist()
    return Answer(found.tokens_BN[row, :length].tolist(), found.logps_BN[row, :length].tolist(), scored)


def _steps(buckets: Sequence[Bucket], there_N: np.ndarray) -> Iterator[Step]:
    """What is to be run, in order, but for batches whose answers are all there."""
    for bucket in buckets:
        for first, batches in bucket.windows:
            asked = [numbers for numbers in batches if not there_N[list(numbers)].all()]
            if first and asked:
                yield Step(bucket, first, first, reads=True)
            yield from (Step(bucket, numbers, first, reads=False) for numbers in asked)


def _ahead(
    prompts: Sequence[Prompt], work: Sequence[Step], prefixes_N2: np.ndarray, values: int, mesh: Mesh | None
) -> Iterator[Batch | Rest]:
    """What each step reads, built while the one before it is run."""

    def build(step: Step) -> Batch | Rest:
        bucket, numbers, first, reads = step
        rows = bucket.prefixes if reads else bucket.rows
        own = list(range(rows)) if mesh is None else own_rows(mesh, rows)
        held = [numbers[row] if row < len(numbers) else None for row in own]
        if first and not reads:
            built = rests(prompts, held, bucket.rest, first, prefixes_N2)
        else:
            ends = [None if i is None or not reads else int(prefixes_N2[i, 1]) for i in held]
            built = pad([None if i is None else prompts[i] for i in held], bucket, values, ends)
        return built if mesh is None else type(built)(*(from_own_rows(mesh, rows, own, x) for x in built))

    with concurrent.futures.ThreadPoolExecutor(1) as builder:
        built = [builder.submit(build, work[0])] if work else []
        for i in range(len(work)):
            batch = built.pop().result()
            if i + 1 < len(work):
                built.append(builder.submit(build, work[i + 1]))
            yield batch


def sizes(prompts: Sequence[Prompt]) -> np.ndarray:
    """(tokens, patches) of each prompt."""
    known = getattr(prompts, "sizes_N2", None)
    found = [[len(p.tokens_S), len(p.patches_PC)] for p in prompts] if known is None else known
    return np.array(found, np.int64).reshape(-1, 2)


def prefixes(prompts: Sequence[Prompt]) -> np.ndarray:
    """(number of a prefix, its tokens) of each prompt: prompts with the same number have the same patches and the same
    tokens up to the last that stands for some of them. (-1, 0) where nothing can be shared."""
    known = getattr(prompts, "prefixes_N2", None)
    if known is not None:
        return known
    seen: dict[bytes, int] = {}
    found = []
    for p in prompts:
        end = int(np.flatnonzero(p.vision_index_S >= 0).max(initial=-1)) + 1
        if not 0 < end < len(p.tokens_S):
            found.append((-1, 0))
            continue
        digest = hashlib.sha256(str(end).encode())
        read = (p.tokens_S[:end], p.positions_S3[:end], p.vision_index_S[:end])
        for array in (*read, p.patches_PC, p.patch_hw_P2, p.patch_segments_P):
            digest.update(np.ascontiguousarray(array).data)
        found.append((seen.setdefault(digest.digest(), len(seen)), end))
    return np.array(found, np.int64).reshape(-1, 2)


class _Units(NamedTuple):
    """What is read in one piece: whole prompts, or prefixes with the prompts that share them. sizes_U3: patches,
    tokens, and tokens of the longest rest, as multiples of _ROUND."""

    members: list[tuple[int, ...]]
    sizes_U3: np.ndarray


def plan(
    sizes_N2: np.ndarray,
    limits: np.ndarray,
    *,
    rows: int,
    shapes: int,
    shards: int = 1,
    prefixes_N2: np.ndarray | None = None,
) -> list[Bucket]:
    """Every prompt in exactly one bucket, at most `shapes` buckets. shards: the rows of a batch are a multiple
    of it, and attention scores are limited in each. prefixes_N2: see `prefixes`; None shares nothing."""
    if rows < 1 or shapes < 1:
        raise ValueError(f"rows and shapes: expected at least 1, found {rows} and {shapes}")
    if prefixes_N2 is None or shapes == 1:
        prefixes_N2 = np.tile([-1, 0], (len(sizes_N2), 1))
    kinds = _units(sizes_N2, prefixes_N2)
    splits = [_split(units, limits, shapes, rows // shards) for units in kinds]
    # shapes go to whole prompts and to shared prefixes as costs least
    pairs = [(splits[0][k], splits[1][shapes - k]) for k in range(shapes + 1)]
    pair = min(pairs, key=lambda pair: pair[0][0] + pair[1][0])
    return [
        _bucket([units.members[u] for u in run], units.sizes_U3[run].max(0), sizes_N2, limits, rows // shards, shards)
        for units, (_, runs) in zip(kinds, pair, strict=True)
        for run in runs
    ]


def _units(sizes_N2: np.ndarray, prefixes_N2: np.ndarray) -> tuple[_Units, _Units]:
    """Whole prompts, and the prefixes that are cheaper read once."""
    alike: dict[int, list[int]] = {}
    for number, (prefix, _) in enumerate(prefixes_N2.tolist()):
        alike.setdefault(prefix, []).append(number)
    alone = set(alike.pop(-1, []))
    members, found = [], []
    for numbers in alike.values():
        tokens, patches = sizes_N2[numbers].max(0)
        read = int(prefixes_N2[numbers[0], 1])
        size = _up(np.array([patches, read, tokens - read]), _ROUND)
        apart = len(numbers) * _cost(_up(tokens, _ROUND), size[0])
        if len(numbers) == 1 or apart <= _cost(size[1], size[0]) + len(numbers) * _cost(size[2], 0):
            alone.update(numbers)
        else:
            members.append(tuple(numbers))
            found.append(size)
    numbers = sorted(alone)
    sizes_U2 = _up(sizes_N2[numbers][:, ::-1], _ROUND)
    whole = _Units([(i,) for i in numbers], np.pad(sizes_U2, ((0, 0), (0, 1))))
    return whole, _Units(members, np.array(found, np.int64).reshape(-1, 3))


def _bucket(
    units: list[tuple[int, ...]], size: np.ndarray, sizes_N2: np.ndarray, limits: np.ndarray, rows: int, shards: int
) -> Bucket:
    """The bucket of whole prompts or of prefixes and those that share them. rows: most on one device."""
    patches, tokens, rest = size.tolist()

    def longest_first(number: int) -> tuple[int, int, int]:
        return -limits[number], -sizes_N2[number, 0], number

    units = sorted(units, key=lambda unit: min(map(longest_first, unit)))
    new_tokens = max(1, *(int(limits[i]) for unit in units for i in unit))
    most = _rows_at_once(tokens, patches, rows) * shards
    each = -(-len(units) // -(-len(units) // most))  # even windows
    apart = [units[i : i + each] for i in range(0, len(units), each)]
    if not rest:
        windows = tuple(Window((), (tuple(i for unit in window for i in unit),)) for window in apart)
        return Bucket(windows, -(-each // shards) * shards, tokens, patches, new_tokens)
    asked = [sorted((i for unit in window for i in unit), key=longest_first) for window in apart]
    most = _rest_rows(tokens, rest, rows) * shards
    answered = max(-(-len(numbers) // -(-len(numbers) // most)) for numbers in asked)  # even batches
    batches = [[tuple(numbers[i : i + answered]) for i in range(0, len(numbers), answered)] for numbers in asked]
    windows = tuple(Window(tuple(u[0] for u in w), tuple(b)) for w, b in zip(apart, batches, strict=True))
    whole_shards = [-(-count // shards) * shards for count in (answered, each)]
    return Bucket(windows, whole_shards[0], tokens, patches, new_tokens, whole_shards[1], rest)


def _up(sizes: Any, to: int) -> Any:
    """Rounded up to multiples."""
    return -(-sizes // to) * to


def _rows_at_once(tokens: int, patches: int, rows: int) -> int:
    """Of the `rows` of a device, those whose attention scores are not too many."""
    return max(1, min(rows, _MOST_SCORES // max(patches, tokens) ** 2))


def _rest_rows(tokens: int, rest: int, rows: int) -> int:
    """As _rows_at_once, where `rest` tokens attend to `tokens` before them and to themselves, and all are cached in
    every row."""
    return max(1, min(rows, _MOST_SCORES // (rest * (tokens + rest)), _MOST_SLOTS // (tokens + rest)))


def _split(units: _Units, limits: np.ndarray, shapes: int, rows: int) -> list[tuple[float, list[np.ndarray]]]:
    """For 0 to `shapes` runs: units cut by size into at most so many of least cost, and that cost: reading each unit
    and each rest in the shape of its run, and the steps of their batches of `rows`, those with the longest limits
    first."""
    grain = _ROUND
    while True:
        kinds_K3, kind_U = np.unique(_up(units.sizes_U3, grain), axis=0, return_inverse=True)
        if (count := len(kinds_K3)) <= _KINDS:
            break
        grain *= 2
    kind_U = kind_U.reshape(-1)  # numpy 2.0 gives it a second axis
    units_K = np.bincount(kind_U, minlength=count)
    falling_L, limit_N = np.unique(-np.asarray(limits), return_inverse=True)
    asked_KL = np.zeros((count, len(falling_L)), np.int64)
    kind_M = np.repeat(kind_U, [len(numbers) for numbers in units.members])
    np.add.at(asked_KL, (kind_M, limit_N[[i for numbers in units.members for i in numbers]]), 1)
    most_KL = np.cumsum(asked_KL, axis=1)  # with at least this limit
    drops_L = np.diff(falling_L, append=0)  # from a limit to the next
    best = np.full((shapes + 1, count + 1), np.inf)  # best[k, j]: the first j kinds in k runs
    best[:, 0] = 0
    cut = np.zeros((shapes + 1, count + 1), int)
    for last in range(1, count + 1):
        largest, read, most_L = np.zeros(3, int), 0, 0
        for first in range(last - 1, -1, -1):
            largest = np.maximum(largest, kinds_K3[first])
            read, most_L = read + units_K[first], most_L + most_KL[first]
            patches, tokens, rest = largest
            at_once = _rest_rows(tokens, rest, rows) if rest else _rows_at_once(tokens, patches, rows)
            steps = -(-most_L // at_once) @ drops_L
            cost = read * _cost(tokens, patches) + most_L[-1] * _cost(rest, 0) + steps * _STEP
            for k in range(1, shapes + 1):
                if best[k - 1, first] + cost < best[k, last]:
                    best[k, last], cut[k, last] = best[k - 1, first] + cost, first
    found = []
    for most in range(shapes + 1):
        runs, last = [], count
        for k in range(most, 0, -1):
            if last:
                runs.append(np.flatnonzero((kind_U >= cut[k, last]) & (kind_U < last)))
                last = int(cut[k, last])
        found.append((float(best[most, count]), runs[::-1]))
    return found


def _cost(tokens: float, patches: float) -> float:
    """Work of one row: linear layers, and attention that catches up with them at about a thousand."""
    return tokens * (1 + tokens / 1024) + patches * (1 + patches / 1024)


def pad(
    prompts: Sequence[Prompt | None], bucket: Bucket, values: int, ends: Sequence[int | None] | None = None
) -> Batch:
    """One prompt a row, right-padded to the shape of the bucket; None is a row of padding. values: of a patch.
    ends: how many tokens of a prompt are taken, None for all."""
    batch = empty_batch(len(prompts), bucket.tokens, bucket.patches, values)
    for row, prompt in enumerate(prompts):
        if prompt is None:
            continue
        end = ends[row] if ends else None
        s, p = len(prompt.tokens_S[:end]), len(prompt.patches_PC)
        batch.tokens_BS[row, :s] = prompt.tokens_S[:end]
        batch.positions_BS3[row, :s] = prompt.positions_S3[:end]
        batch.segments_BS[row, :s] = 1
        batch.vision_index_BS[row, :s] = prompt.vision_index_S[:end]
        if p:
            batch.patches_BPC[row, :p] = prompt.patches_PC
            batch.patch_hw_BP2[row, :p] = prompt.patch_hw_P2
            batch.patch_segments_BP[row, :p] = prompt.patch_segments_P
    return batch


def rests(
    prompts: Sequence[Prompt],
    numbers: Sequence[int | None],
    slots: int,
    first: Sequence[int],
    prefixes_N2: np.ndarray,
) -> Rest:
    """What these prompts say after their prefix, right-padded to `slots` tokens; None is a row of padding. first: the
    prompts whose prefixes have been read."""
    place = {int(prefixes_N2[i, 0]): row for row, i in enumerate(first)}
    text = getattr(prompts, "text", prompts.__getitem__)
    rest = Rest(np.zeros(len(numbers), np.int32), *(np.zeros((len(numbers), slots), np.int32) for _ in range(3)))
    for row, number in enumerate(numbers):
        if number is None:
            continue
        prefix, end = prefixes_N2[number]
        prompt = text(number)
        own = slice(0, len(prompt.tokens_S) - end)
        rest.prefix_B[row] = place[int(prefix)]
        rest.tokens_BM[row, own] = prompt.tokens_S[end:]
        rest.positions_BM[row, own] = prompt.positions_S3[end:, 0]
        rest.filled_BM[row, own] = 1
    return rest
