"""Opens checkpoints, folders of upstream's layout: from the hub, embedded, local or with random weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from engines.checkpoints.hub import Hub, HubUnreachable, HuggingFaceHub, NoSuchRevision
from engines.checkpoints.random_checkpoint import Generator, NetGenerator, is_random, materialise
from engines.checkpoints.recognise import recognise, t3_files
from engines.checkpoints.tensor_file import Shape, tensor_problems
from engines.errors import CheckpointError
from engines.model_spec import MODELS, MULTILINGUAL, MULTILINGUAL_V2, NANO, STANDARD, TINY, TURBO, ModelSpec
from engines.text.tokenizer import TOKENIZER_FILES

Table = tuple[str, Mapping[str, Shape]]  # the prefix of a net's tensors in the file; their names and shapes


@dataclass(frozen=True)
class Published:
    """A repository of the hub, and the commit whose weights are served unless another one is named."""

    repository: str
    commit: str


_CHATTERBOX = Published("ResembleAI/chatterbox", "5bb1f6ee58e50c3b8d408bc82a6d3740c2db6e18")
PUBLISHED = {
    TURBO.name: Published("ResembleAI/chatterbox-turbo", "749d1c1a46eb10492095d68fbcf55691ccf137cd"),
    NANO.name: Published("ResembleAI/chatterbox-nano", "71ccd1d0081b430592cea481f4307e764e07bc64"),
    STANDARD.name: _CHATTERBOX,
    MULTILINGUAL.name: _CHATTERBOX,
    MULTILINGUAL_V2.name: _CHATTERBOX,
}
CANGJIE_FILE = "Cangjie5_TC.json"  # beside Multilingual's weights: the codes in which Chinese is written
_VOICE_ENCODER_FILE = "ve.safetensors"
_CONDS_FILE = "conds.pt"
_VOICE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_VOICE_BYTES = 4 * 2**20  # a voice takes 0.3 MB at most; a net's weights in the same folder take more
EMBEDDED = Path(__file__).parents[1] / "embedded" / TINY.name  # made by tools/tiny
_RANDOM = "random:"
_REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_ABOUT_TINY = "a small model that ships with Mynah and has two synthetic voices"
_NOISE = "its weights are random and its speech is noise, for tests of the system only"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of upstream's layout. `notice` is a sentence for people if this is not what was asked for, or not a
    published model.

    t3_name  the file of T3's weights where it has another name than the model's
    """

    folder: Path
    spec: ModelSpec
    random_weights: bool = False
    notice: str = ""
    t3_name: str = ""

    @property
    def voice_model(self) -> str:
        """The name that voices made with these weights carry."""
        return self._named(self.spec.name)

    @property
    def voice_models(self) -> tuple[str, ...]:
        """The names on the voices that these weights speak."""
        return tuple(self._named(name) for name in self.spec.voice_models)

    def _named(self, model: str) -> str:
        return _RANDOM + model if self.random_weights else model

    @property
    def t3_path(self) -> Path:
        return self.folder / (self.t3_name or self.spec.t3_file)

    @property
    def s3gen_path(self) -> Path:
        """The file of flow., mel2wav. (vocoder), tokenizer. (S3 tokenizer) and speaker_encoder. (CAMPPlus)."""
        return self.folder / self.spec.s3gen_name

    @property
    def voice_encoder_path(self) -> Path:
        return self.folder / _VOICE_ENCODER_FILE

    @property
    def conds_path(self) -> Path | None:
        """The file of the first built-in voice, or None."""
        path = self.folder / _CONDS_FILE
        return path if path.exists() else None

    @property
    def other_voice_paths(self) -> dict[str, Path]:
        """The files that may be other built-in voices, by the voices' ids: ID.pt, small as the first one's file is."""
        files = [path for path in self.folder.glob("*.pt") if path.name != _CONDS_FILE]
        named = {path.stem: path for path in sorted(files) if _VOICE_ID.fullmatch(path.stem)}
        return {voice_id: path for voice_id, path in named.items() if path.stat().st_size <= _MAX_VOICE_BYTES}


def open_checkpoint(
    model: str,
    *,
    cache_dir: Path | None,
    seed: int = 0,
    device: str,
    hub: Hub | None = None,
    generator: Generator | None = None,
) -> Checkpoint:
    """Returns the checkpoint of a model, downloaded if necessary.

    `model` is auto, tiny, the name of a published model, OWNER/NAME of a hub repository, a folder, or random: before a
    model's name. A revision may follow a name or a repository behind an @ (a name alone is the commit in `PUBLISHED`),
    and a model's name and a colon may stand before a repository or a folder, if that holds several models. `auto` is
    turbo if `device` ("cpu", "cuda", "cuda:1") is a GPU, else nano; if the hub does not answer, it is tiny with a
    notice. `cache_dir` defaults to `default_cache_dir()`; `seed` is for random weights; `hub` and `generator` are for
    tests.
    Raises CheckpointError with the problem and its solution. It does not check tensors: see `verify`.
    """
    cache_dir = cache_dir or default_cache_dir()
    hub = hub or HuggingFaceHub(cache_dir / "hub")
    generator = generator or NetGenerator()
    if model == "auto":
        spec = TURBO if device.startswith("cuda") else NANO
        try:
            return _published(spec, hub)
        except HubUnreachable as error:
            return _fallback(spec, error)
    if model == TINY.name:
        return _embedded(f"This is {TINY.name}, {_ABOUT_TINY}.")
    name, pinned, revision = model.partition("@")
    if name in PUBLISHED and bool(pinned) == bool(revision):
        return _from_hub(MODELS[name], hub, revision) if revision else _published(MODELS[name], hub)
    if model.startswith(_RANDOM):
        return open_folder(materialise(_random_spec(model), seed, cache_dir, generator))
    return _from_place(model, hub)


def _from_place(model: str, hub: Hub) -> Checkpoint:
    """A folder or a repository of the hub, with the name of a model before it if it holds several."""
    name, _, behind = model.partition(":")
    wanted, place = (MODELS[name], behind) if name in MODELS and behind else (None, model)
    if place and Path(place).expanduser().is_dir():
        return open_folder(Path(place).expanduser(), wanted)
    repository = _REPOSITORY.fullmatch(place)
    if repository is None:
        known = ", ".join(_names())
        raise CheckpointError(
            f"model {model!r} is neither an existing folder nor OWNER/NAME of a hub repository nor one of {known}"
        )
    return _from_repository(repository["repository"], repository["revision"], wanted, hub)


def needs_hub(model: str) -> bool:
    """Whether the hub may be asked for a model: it is none of this machine's folders, shipped or random."""
    name = model.partition("@")[0]
    place = model.partition(":")[2] if model.partition(":")[0] in MODELS else model
    on_hub = model == "auto" or name in PUBLISHED or _REPOSITORY.fullmatch(place) is not None
    return on_hub and not (place and Path(place).expanduser().is_dir())


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """$MYNAH_CACHE_DIR, else $XDG_CACHE_HOME/mynah, else ~/.cache/mynah."""
    if named := environ.get("MYNAH_CACHE_DIR"):
        return Path(named).expanduser()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mynah"


def open_folder(folder: Path, wanted: ModelSpec | None = None) -> Checkpoint:
    """Returns the checkpoint in `folder`, recognised by T3's file; `wanted` is the model if it holds several.

    Raises CheckpointError as `recognise`, or if another file is missing.
    """
    spec, t3_name = recognise(folder, wanted)
    if missing := _missing(folder, spec, t3_name):
        raise CheckpointError(f"{folder}: a {spec.name} checkpoint also needs {', '.join(missing)}")
    random = is_random(folder)
    notice = f"This is random:{spec.name}: {_NOISE}" if random else ""
    return Checkpoint(folder, spec, random, notice, "" if t3_name == spec.t3_file else t3_name)


def verify(checkpoint: Checkpoint, tables: Mapping[Path, Iterable[Table]]) -> None:
    """Check that every tensor exists with its shape; reads headers only.

    `tables` has, for each file, the nets in it: the prefix of their tensors, and shapes by name without prefix. Other
    tensors are ignored. Raises CheckpointError naming each missing or misshapen tensor of all files.
    """
    problems = [problem for path, parts in tables.items() for problem in _problems(path, parts)]
    if problems:
        shown = "\n  ".join(problems)
        raise CheckpointError(
            f"{checkpoint.folder}: not the {checkpoint.spec.name} weights, {len(problems)} problems:\n  {shown}"
        )


def _problems(path: Path, parts: Iterable[Table]) -> list[str]:
    expected = {prefix + name: shape for prefix, shapes in parts for name, shape in shapes.items()}
    try:
        return [f"{path.name}: {problem}" for problem in tensor_problems(path, expected)]
    except CheckpointError as error:
        return [str(error)]


def _missing(folder: Path, spec: ModelSpec, t3_name: str) -> list[str]:
    """Returns the missing files among those that are required; the built-in voice is optional."""
    needed = [t3_name, spec.s3gen_name, _VOICE_ENCODER_FILE]
    if spec.tokenizer_name:
        needed.append(spec.tokenizer_name)
    elif not (folder / "tokenizer.json").is_file():
        needed += ["vocab.json", "merges.txt"]
    return [name for name in needed if not (folder / name).is_file()]


def _small_files(spec: ModelSpec) -> tuple[str, ...]:
    """The files of a checkpoint beside its weights."""
    tokenizer = (spec.tokenizer_name,) if spec.tokenizer_name else TOKENIZER_FILES
    return (_CONDS_FILE, *tokenizer, *((CANGJIE_FILE,) if spec.languages else ()))


def _published(spec: ModelSpec, hub: Hub) -> Checkpoint:
    """The weights of the model's commit; where they cannot be had, the newest that can, with a notice."""
    published = PUBLISHED[spec.name]
    try:
        return _from_hub(spec, hub, published.commit)
    except (HubUnreachable, NoSuchRevision) as error:
        newest = _usable(spec, hub, None) if isinstance(error, HubUnreachable) else [_downloaded(spec, hub, None)]
        if not newest:
            raise
        cause = error.cause if isinstance(error, HubUnreachable) else "it has no such revision"
        notice = (
            f"These are other weights of {published.repository} than those of its commit {published.commit[:12]}, "
            f"which the hub did not give ({cause}); {spec.name}@main asks for the newest."
        )
        return replace(open_folder(newest[0], spec), notice=notice)


def _from_hub(spec: ModelSpec, hub: Hub, revision: str) -> Checkpoint:
    usable = _usable(spec, hub, revision)
    small = _small_files(spec)
    last = {_CONDS_FILE, CANGJIE_FILE, "tokenizer_config.json"} & set(small)
    for folder in usable:  # an incomplete download may lack one of the small files
        if all((folder / name).is_file() for name in last):
            return open_folder(folder, spec)
    try:
        return open_folder(_downloaded(spec, hub, revision), spec)
    except HubUnreachable:
        if usable:
            return open_folder(usable[0], spec)
        raise


def _usable(spec: ModelSpec, hub: Hub, revision: str | None) -> list[Path]:
    """The folders of the cache with all that the model needs."""
    cached = hub.cached(PUBLISHED[spec.name].repository, _files(spec), revision)
    return [folder for folder in cached if not _missing(folder, spec, spec.t3_file)]


def _downloaded(spec: ModelSpec, hub: Hub, revision: str | None) -> Path:
    return hub.download(PUBLISHED[spec.name].repository, _files(spec), revision)


def _files(spec: ModelSpec) -> tuple[str, ...]:
    return (spec.t3_file, spec.s3gen_name, _VOICE_ENCODER_FILE, *_small_files(spec))


def _from_repository(repository: str, revision: str | None, wanted: ModelSpec | None, hub: Hub) -> Checkpoint:
    """A repository of anyone: which of its files are needed is known from their names."""
    specs = [wanted] if wanted is not None else list(MODELS.values())
    everything = {name for spec in specs for name in (spec.s3gen_name, *_small_files(spec))}
    try:
        names = hub.file_names(repository, revision)
    except HubUnreachable:
        for folder in hub.cached(repository, (*everything, "t3*.safetensors", _VOICE_ENCODER_FILE), revision):
            with suppress(CheckpointError):
                return open_folder(folder, wanted)
        raise
    t3 = t3_files(names)
    known = [spec for spec in specs if spec.t3_file in t3]
    if len(known) != 1 and len(t3) != 1:
        one = known[0].name if known else STANDARD.name
        raise CheckpointError(
            f"hub repository {repository} has {len(t3)} files of T3's weights ({', '.join(t3) or 'none'}); "
            f"name the model before it, as in {one}:{repository}"
        )
    files = (known[0].t3_file if known else t3[0], _VOICE_ENCODER_FILE, *sorted(everything))
    return open_folder(hub.download(repository, files, revision), wanted)


def _names() -> tuple[str, ...]:
    return ("auto", *PUBLISHED, TINY.name, *(_RANDOM + name for name in MODELS))


def _random_spec(model: str) -> ModelSpec:
    name = model.removeprefix(_RANDOM)
    if name not in MODELS:
        raise CheckpointError(f"model {model!r}: random weights come as {', '.join(_RANDOM + n for n in MODELS)}")
    return MODELS[name]


def _embedded(notice: str) -> Checkpoint:
    return replace(open_folder(EMBEDDED), notice=notice)


def _fallback(spec: ModelSpec, error: HubUnreachable) -> Checkpoint:
    return _embedded(
        f"The model hub cannot be reached ({error.cause}), so this is {TINY.name}, {_ABOUT_TINY}, and not "
        f"{spec.name}. For {spec.name}, connect this machine to huggingface.co once, or name a folder that holds it."
    )
