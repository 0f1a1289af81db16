"""Opens checkpoints, folders of upstream's layout: from the hub, embedded, local or with random weights."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engines.checkpoints.hub import Hub, HubUnreachable, HuggingFaceHub
from engines.checkpoints.random_checkpoint import Generator, NetGenerator, is_random, materialise
from engines.checkpoints.tensor_file import Shape, tensor_problems
from engines.errors import CheckpointError
from engines.model_spec import MODELS, NANO, TINY, TURBO, ModelSpec
from engines.text.tokenizer import TOKENIZER_FILES

Table = tuple[str, Mapping[str, Shape]]  # the prefix of a net's tensors in the file; their names and shapes

REPOSITORIES = {TURBO.name: "ResembleAI/chatterbox-turbo", NANO.name: "ResembleAI/chatterbox-nano"}
_VOICE_ENCODER_FILE = "ve.safetensors"
_CONDS_FILE = "conds.pt"
_VOICE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MAX_VOICE_BYTES = 4 * 2**20  # a voice takes 0.3 MB at most; a net's weights in the same folder take more
EMBEDDED = Path(__file__).parents[1] / "embedded" / TINY.name  # made by tools/tiny
_RANDOM = "random:"
_ABOUT_TINY = "a small model that ships with Mynah and has two synthetic voices"
_NOISE = "its weights are random and its speech is noise, for tests of the system only"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of upstream's layout. `notice` is a sentence for people if this is not a published model."""

    folder: Path
    spec: ModelSpec
    random_weights: bool = False
    notice: str = ""

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
        return self.folder / self.spec.t3_file

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

    `model` is auto, turbo, nano, tiny, FOLDER, random:turbo, random:nano or random:tiny. turbo@REVISION and
    nano@REVISION are that commit, tag or branch of the hub's repository and no other. `auto` is turbo if `device`
    ("cpu", "cuda", "cuda:1") is a GPU, else nano; if the hub does not answer, it is tiny with a notice. `cache_dir`
    defaults to `default_cache_dir()`; `seed` is for random weights; `hub` and `generator` are for tests.
    Raises CheckpointError with the problem and its solution. It does not check tensors: see `verify`.
    """
    cache_dir = cache_dir or default_cache_dir()
    hub = hub or HuggingFaceHub(cache_dir / "hub")
    generator = generator or NetGenerator()
    if model == "auto":
        spec = TURBO if device.startswith("cuda") else NANO
        try:
            return _from_hub(spec, hub)
        except HubUnreachable as error:
            return _fallback(spec, error)
    if model == TINY.name:
        return _embedded(f"This is {TINY.name}, {_ABOUT_TINY}.")
    name, pinned, revision = model.partition("@")
    if name in REPOSITORIES and bool(pinned) == bool(revision):
        return _from_hub(MODELS[name], hub, revision or None)
    if model.startswith(_RANDOM):
        return open_folder(materialise(_random_spec(model), seed, cache_dir, generator))
    if not model or not Path(model).expanduser().is_dir():
        raise CheckpointError(f"model {model!r} is neither an existing folder nor one of {', '.join(_names())}")
    return open_folder(Path(model).expanduser())


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """$MYNAH_CACHE_DIR, else $XDG_CACHE_HOME/mynah, else ~/.cache/mynah."""
    if named := environ.get("MYNAH_CACHE_DIR"):
        return Path(named).expanduser()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mynah"


def open_folder(folder: Path) -> Checkpoint:
    """Returns the checkpoint in `folder`; the name of T3's file identifies the model.

    Raises CheckpointError if the folder does not have exactly one T3 file, or if another file is missing.
    """
    spec = _recognise(folder)
    if missing := _missing(folder, spec):
        raise CheckpointError(f"{folder}: a {spec.name} checkpoint also needs {', '.join(missing)}")
    random = is_random(folder)
    return Checkpoint(folder, spec, random, f"This is random:{spec.name}: {_NOISE}" if random else "")


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


def _recognise(folder: Path) -> ModelSpec:
    specs = [spec for spec in MODELS.values() if (folder / spec.t3_file).is_file()]
    if len(specs) == 1:
        return specs[0]
    expected = ", ".join(spec.t3_file for spec in MODELS.values())
    existing = sorted(path.name for path in folder.glob("*.safetensors"))
    raise CheckpointError(f"{folder}: exactly one of {expected} is expected, found {', '.join(existing) or 'none'}")


def _missing(folder: Path, spec: ModelSpec) -> list[str]:
    """Returns the missing files among those that are required; the built-in voice is optional."""
    needed = [spec.t3_file, spec.s3gen_name, _VOICE_ENCODER_FILE]
    if not (folder / "tokenizer.json").is_file():
        needed += ["vocab.json", "merges.txt"]
    return [name for name in needed if not (folder / name).is_file()]


def _from_hub(spec: ModelSpec, hub: Hub, revision: str | None = None) -> Checkpoint:
    repository = REPOSITORIES[spec.name]
    files = (spec.t3_file, spec.s3gen_name, _VOICE_ENCODER_FILE, _CONDS_FILE, *TOKENIZER_FILES)
    usable = [folder for folder in hub.cached(repository, files, revision) if not _missing(folder, spec)]
    for folder in usable:  # an incomplete download may lack one of the small files
        if (folder / _CONDS_FILE).is_file() and (folder / "tokenizer_config.json").is_file():
            return open_folder(folder)
    try:
        return open_folder(hub.download(repository, files, revision))
    except HubUnreachable:
        if usable:
            return open_folder(usable[0])
        raise


def _names() -> tuple[str, ...]:
    return ("auto", *REPOSITORIES, TINY.name, *(_RANDOM + name for name in MODELS))


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
