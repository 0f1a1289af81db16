"""Where weights come from: hub id | shipped with us | folder | random -> a Checkpoint, a folder of upstream's layout.

Knows file names and tensor headers; builds no net and imports no model library.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engines.checkpoints.hub import Hub, HubUnreachable, HuggingFaceHub
from engines.checkpoints.random_checkpoint import Generator, NetGenerator, is_random, materialise
from engines.checkpoints.tensor_file import TensorInfo, read_header
from engines.errors import CheckpointError
from engines.model_spec import MODELS, NANO, TINY, TURBO, ModelSpec
from engines.text import TOKENIZER_FILES

Shape = tuple[int, ...]
Table = tuple[str, Mapping[str, Shape]]  # prefix in the file, then the net's own names and shapes

REPOSITORIES = {TURBO.name: "ResembleAI/chatterbox-turbo", NANO.name: "ResembleAI/chatterbox-nano"}
_S3GEN_FILE = "s3gen_meanflow.safetensors"
_VOICE_ENCODER_FILE = "ve.safetensors"
_CONDS_FILE = "conds.pt"
EMBEDDED = Path(__file__).parents[1] / "embedded" / TINY.name  # tools/tiny made it
_RANDOM = "random:"
_ABOUT_TINY = "a small model that ships with Mynah and knows two synthetic voices"
_NOISE = "its weights are random and what it says is noise, good for trying out the system only"


@dataclass(frozen=True)
class Checkpoint:
    """A folder of upstream's layout. `notice` is a sentence for people when this is not the real thing."""

    folder: Path
    spec: ModelSpec
    random_weights: bool = False
    notice: str = ""

    @property
    def t3_path(self) -> Path:
        return self.folder / self.spec.t3_file

    @property
    def s3gen_path(self) -> Path:
        """flow., mel2wav. (vocoder), tokenizer. (S3 tokenizer) and speaker_encoder. (CAMPPlus) in one file."""
        return self.folder / _S3GEN_FILE

    @property
    def voice_encoder_path(self) -> Path:
        return self.folder / _VOICE_ENCODER_FILE

    @property
    def conds_path(self) -> Path | None:
        """The built-in voice, if the checkpoint has one."""
        path = self.folder / _CONDS_FILE
        return path if path.exists() else None


def open_checkpoint(
    model: str,
    *,
    cache_dir: Path | None,
    seed: int = 0,
    device: str,
    hub: Hub | None = None,
    generator: Generator | None = None,
) -> Checkpoint:
    """The checkpoint that `model` names, on this machine when this returns. May take as long as a download takes.

    `model` is auto | turbo | nano | tiny | FOLDER | random:turbo | random:nano | random:tiny. `auto` is turbo where
    `device` ("cpu", "cuda", "cuda:1") is a GPU and nano elsewhere, or tiny with a notice when the hub does not answer.
    `cache_dir` None is `default_cache_dir()`; `seed` is for random weights. `hub` and `generator` are for tests.
    Raises CheckpointError saying what is wrong and what to do; tensors are `verify`'s to look at.
    """
    cache_dir = cache_dir or default_cache_dir()
    hub = hub or HuggingFaceHub(cache_dir / "hub")
    generator = generator or NetGenerator()
    if model == "auto":
        spec = TURBO if device.startswith("cuda") else NANO
        try:
            return _from_hub(spec, hub)
        except HubUnreachable as error:
            return _instead_of(spec, error)
    if model == TINY.name:
        return _embedded(f"This is {TINY.name}, {_ABOUT_TINY}.")
    if model in REPOSITORIES:
        return _from_hub(MODELS[model], hub)
    if model.startswith(_RANDOM):
        return open_folder(materialise(_random_spec(model), seed, cache_dir, generator))
    if not model or not Path(model).expanduser().is_dir():
        raise CheckpointError(f"model {model!r} is not an existing folder and none of {', '.join(_names())}")
    return open_folder(Path(model).expanduser())


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """$MYNAH_CACHE_DIR, else $XDG_CACHE_HOME/mynah, else ~/.cache/mynah."""
    if named := environ.get("MYNAH_CACHE_DIR"):
        return Path(named).expanduser()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mynah"


def open_folder(folder: Path) -> Checkpoint:
    """The checkpoint that lies in `folder`; which model it is shows in the name of T3's file.

    Raises CheckpointError when no or several T3 files are in it, or another file is missing.
    """
    spec = _recognise(folder)
    if missing := _missing(folder, spec):
        raise CheckpointError(f"{folder}: a {spec.name} checkpoint also needs {', '.join(missing)}")
    random = is_random(folder)
    return Checkpoint(folder, spec, random, f"This is random:{spec.name}: {_NOISE}" if random else "")


def verify(checkpoint: Checkpoint, tables: Mapping[Path, Iterable[Table]]) -> None:
    """Check that every tensor is there in its shape, reading headers only.

    `tables` gives for each file of the checkpoint the nets that live in it: the prefix of their names there, and
    name without prefix -> shape. What a file holds beyond them is not looked at. Raises CheckpointError naming each
    missing or wrong tensor of all files at once.
    """
    problems = [problem for path, parts in tables.items() for problem in _problems(path, parts)]
    if problems:
        shown = "\n  ".join(problems)
        raise CheckpointError(
            f"{checkpoint.folder}: not the {checkpoint.spec.name} weights, {len(problems)} problems:\n  {shown}"
        )


def _problems(path: Path, parts: Iterable[Table]) -> list[str]:
    try:
        found = read_header(path)
    except CheckpointError as error:
        return [str(error)]
    wanted = {prefix + name: shape for prefix, shapes in parts for name, shape in shapes.items()}
    checks = (_problem(name, shape, found.get(name)) for name, shape in wanted.items())
    return [f"{path.name}: {problem}" for problem in checks if problem]


def _problem(name: str, shape: Shape, found: TensorInfo | None) -> str:
    if found is None:
        return f"{name} is missing, expected {shape}"
    return "" if found.shape == shape else f"{name} has shape {found.shape}, expected {shape}"


def _recognise(folder: Path) -> ModelSpec:
    found = [spec for spec in MODELS.values() if (folder / spec.t3_file).is_file()]
    if len(found) == 1:
        return found[0]
    expected = ", ".join(spec.t3_file for spec in MODELS.values())
    there = sorted(path.name for path in folder.glob("*.safetensors"))
    raise CheckpointError(f"{folder}: exactly one of {expected} is expected, found {', '.join(there) or 'none'}")


def _missing(folder: Path, spec: ModelSpec) -> list[str]:
    """The files without which nothing can be said. The built-in voice is not one of them."""
    needed = [spec.t3_file, _S3GEN_FILE, _VOICE_ENCODER_FILE]
    if not (folder / "tokenizer.json").is_file():
        needed += ["vocab.json", "merges.txt"]
    return [name for name in needed if not (folder / name).is_file()]


def _from_hub(spec: ModelSpec, hub: Hub) -> Checkpoint:
    repository = REPOSITORIES[spec.name]
    files = (spec.t3_file, _S3GEN_FILE, _VOICE_ENCODER_FILE, _CONDS_FILE, *TOKENIZER_FILES)
    usable = [folder for folder in hub.cached(repository, files) if not _missing(folder, spec)]
    for folder in usable:  # a download that broke off may lack one of the small files, so look for them too
        if (folder / _CONDS_FILE).is_file() and (folder / "tokenizer_config.json").is_file():
            return open_folder(folder)
    try:
        return open_folder(hub.download(repository, files))
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


def _instead_of(wanted: ModelSpec, error: HubUnreachable) -> Checkpoint:
    return _embedded(
        f"The model hub cannot be reached ({error.cause}), so this is {TINY.name}, {_ABOUT_TINY}, and not "
        f"{wanted.name}; for {wanted.name} let this machine reach huggingface.co once, or name a folder that holds it."
    )
