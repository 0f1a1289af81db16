"""Tests of opening checkpoints: names, folders, hub and cache, random weights, and verification."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from engines.checkpoints.checkpoint import (
    CANGJIE_FILE,
    EMBEDDED,
    PUBLISHED,
    Checkpoint,
    default_cache_dir,
    open_checkpoint,
    open_folder,
    verify,
)
from engines.checkpoints.hub import HubUnreachable, NoSuchRevision
from engines.checkpoints.random_checkpoint import materialise
from engines.checkpoints.random_tokenizer import TAGS, write_tokenizer
from engines.checkpoints.tensor_file import write_tensors
from engines.errors import CheckpointError
from engines.factory import tensor_tables
from engines.model_spec import MODELS, MULTILINGUAL, MULTILINGUAL_V2, NANO, STANDARD, TINY, TURBO, ModelSpec
from engines.text.tokenizer import TextTokenizer


def fill_folder(folder: Path, spec: ModelSpec, seed: int = 0) -> Path:
    """Write a checkpoint's files, each with one small tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (spec.t3_file, spec.s3gen_name, "ve.safetensors"):
        write_tensors(folder / name, [("w", np.full((2, 3), seed, np.float32))])
    (folder / "conds.pt").write_bytes(b"voice")
    if spec.tokenizer_name:
        (folder / spec.tokenizer_name).write_text("{}")
    else:
        write_tokenizer(folder, 320)
    return folder


class FewBytes:
    """A generator of small folders that counts them."""

    version = 1

    def __init__(self, code: str = "code 1") -> None:
        self.code = code
        self.made: list[tuple[str, int]] = []

    def fingerprint(self) -> str:
        return self.code

    def fill(self, folder: Path, spec: ModelSpec, seed: int) -> None:
        self.made.append((spec.name, seed))
        fill_folder(folder, spec, seed)


class BrokenGenerator(FewBytes):
    def fill(self, folder: Path, spec: ModelSpec, seed: int) -> None:
        (folder / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")


class ScriptedHub:
    """A hub that has the given models, or fails with `error`; it records requests."""

    def __init__(self, folder: Path, cached: Sequence[Path] = (), error: CheckpointError | None = None) -> None:
        self.folder, self._cached, self.error = folder, list(cached), error
        self.requests: list[tuple[str, tuple[str, ...]]] = []
        self.revisions: list[str | None] = []  # that were asked for, of the cache and of the hub
        self.names: tuple[str, ...] = ()  # of all repositories

    def cached(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> list[Path]:
        self.revisions.append(revision)
        return self._cached

    def file_names(self, repo_id: str, revision: str | None = None) -> tuple[str, ...]:
        if self.error:
            raise self.error
        return self.names

    def download(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
        self.requests.append((repo_id, tuple(files)))
        self.revisions.append(revision)
        if self.error:
            raise self.error
        spec = next(spec for spec in MODELS.values() if spec.t3_file in files)
        folder = fill_folder(self.folder / spec.name, spec)
        if CANGJIE_FILE in files:
            (folder / CANGJIE_FILE).write_text("[]")
        return folder


def opened(
    model: str, cache: Path, *, hub: ScriptedHub | None = None, device: str = "cpu", generator: FewBytes | None = None
) -> Checkpoint:
    hub = hub or ScriptedHub(cache, error=HubUnreachable("a/b", "ConnectionError"))
    return open_checkpoint(model, cache_dir=cache, seed=3, device=device, hub=hub, generator=generator or FewBytes())


@pytest.mark.parametrize(("device", "name"), [("cpu", "nano"), ("cuda", "turbo"), ("cuda:1", "turbo")])
def test_auto_is_turbo_on_a_gpu_and_nano_on_a_cpu(tmp_path: Path, device: str, name: str) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    checkpoint = opened("auto", tmp_path, hub=hub, device=device)
    assert (checkpoint.spec.name, checkpoint.random_weights, checkpoint.notice) == (name, False, "")
    assert [repo for repo, _ in hub.requests] == [f"ResembleAI/chatterbox-{name}"]


def test_auto_without_a_hub_has_a_notice_in_one_line(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path, error=HubUnreachable("a/b", "ConnectTimeout"))
    checkpoint = opened("auto", tmp_path, hub=hub)
    assert (checkpoint.spec, checkpoint.random_weights) == (TINY, False)
    for word in ("this is tiny", "not nano", "huggingface.co", "ConnectTimeout"):
        assert word in checkpoint.notice
    assert "\n" not in checkpoint.notice


def test_tiny_is_embedded_and_has_every_tensor(tmp_path: Path) -> None:
    checkpoint = opened("tiny", tmp_path)
    assert (checkpoint.spec, checkpoint.random_weights, checkpoint.folder) == (TINY, False, EMBEDDED)
    assert checkpoint.conds_path is not None
    verify(checkpoint, tensor_tables(checkpoint))
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 40_000_000


def test_auto_does_not_hide_a_problem_that_the_user_can_solve(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path, error=CheckpointError("gated: accept its terms"))
    with pytest.raises(CheckpointError, match="gated"):
        opened("auto", tmp_path, hub=hub)


def test_a_pinned_revision_is_asked_of_the_cache_and_of_the_hub(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    assert opened("turbo@0123abc", tmp_path, hub=hub).spec is TURBO
    assert hub.revisions == ["0123abc", "0123abc"]
    opened("nano@main", tmp_path, hub=hub)
    assert hub.revisions[2:] == ["main", "main"]


@pytest.mark.parametrize("model", PUBLISHED)
def test_a_models_name_is_a_commit(model: str, tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    checkpoint = opened(model, tmp_path, hub=hub)
    assert (checkpoint.spec.name, checkpoint.notice) == (model, "")
    assert hub.revisions == [PUBLISHED[model].commit] * 2
    assert re.fullmatch("[0-9a-f]{40}", PUBLISHED[model].commit)


class NewestOnly(ScriptedHub):
    """Has the main branch alone, in its cache and, without `error`, to download."""

    def cached(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> list[Path]:
        return [] if revision else super().cached(repo_id, files, revision)

    def download(self, repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
        if revision and not self.error:
            raise NoSuchRevision(repo_id, revision)
        return super().download(repo_id, files, revision)


def test_weights_of_another_commit_are_served_with_a_notice(tmp_path: Path) -> None:
    mirror = NewestOnly(tmp_path / "hub")
    newest = opened("nano", tmp_path, hub=mirror)
    for word in ("chatterbox-nano", PUBLISHED["nano"].commit[:12], "no such revision", "nano@main"):
        assert word in newest.notice
    with pytest.raises(NoSuchRevision, match="no revision 'v9'"):
        opened("nano@v9", tmp_path, hub=mirror)

    folder = fill_folder(tmp_path / "old", NANO)
    offline = NewestOnly(tmp_path, [folder], HubUnreachable("a/b", "ConnectTimeout"))
    old = opened("nano", tmp_path, hub=offline)
    assert old.folder == folder
    assert "ConnectTimeout" in old.notice


@pytest.mark.parametrize("model", ["turbo@", "tiny@main", "auto@main", "@main"])
def test_only_models_of_the_hub_have_revisions(model: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither an existing folder nor OWNER/NAME"):
        opened(model, tmp_path, hub=ScriptedHub(tmp_path))


def test_a_named_model_without_a_hub_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable):
        opened("turbo", tmp_path)


def test_only_the_needed_files_are_requested(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    opened("turbo", tmp_path, hub=hub)
    [(_, files)] = hub.requests
    assert set(files) >= {"t3_turbo_v1.safetensors", "s3gen_meanflow.safetensors", "ve.safetensors", "conds.pt"}
    assert not any(char in name for name in files for char in "*?")


def test_a_complete_cache_needs_no_network(tmp_path: Path) -> None:
    cached = fill_folder(tmp_path / "cached", NANO)
    hub = ScriptedHub(tmp_path, cached=[tmp_path, cached], error=HubUnreachable("a/b", "ConnectionError"))
    assert opened("nano", tmp_path, hub=hub).folder == cached
    assert not hub.requests


@pytest.mark.parametrize("lost", ["ve.safetensors", "conds.pt", "tokenizer_config.json"])
def test_a_cache_that_lacks_a_file_is_completed(tmp_path: Path, lost: str) -> None:
    cached = fill_folder(tmp_path / "cached", NANO)
    (cached / lost).unlink()
    hub = ScriptedHub(tmp_path / "hub", cached=[cached])
    assert opened("nano", tmp_path, hub=hub).folder == tmp_path / "hub" / "nano"


def test_a_cache_without_a_built_in_voice_is_used_without_a_hub(tmp_path: Path) -> None:
    cached = fill_folder(tmp_path / "cached", NANO)
    (cached / "conds.pt").unlink()
    hub = ScriptedHub(tmp_path, cached=[cached], error=HubUnreachable("a/b", "ConnectionError"))
    checkpoint = opened("nano", tmp_path, hub=hub)
    assert (checkpoint.folder, checkpoint.conds_path) == (cached, None)


@pytest.mark.parametrize(
    ("model", "t3", "files"),
    [
        ("standard", "t3_cfg.safetensors", ["tokenizer.json"]),
        ("multilingual", "t3_mtl23ls_v3.safetensors", [MULTILINGUAL.tokenizer_name, "Cangjie5_TC.json"]),
        ("multilingual-v2", "t3_mtl23ls_v2.safetensors", [MULTILINGUAL.tokenizer_name, "Cangjie5_TC.json"]),
    ],
)
def test_standard_and_multilingual_share_a_repository(tmp_path: Path, model: str, t3: str, files: list[str]) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    checkpoint = opened(model, tmp_path, hub=hub)
    assert (checkpoint.spec.name, checkpoint.t3_path.name, checkpoint.s3gen_path.name) == (
        model,
        t3,
        "s3gen.safetensors",
    )
    assert hub.requests == [("ResembleAI/chatterbox", (t3, "s3gen.safetensors", "ve.safetensors", "conds.pt", *files))]


def test_a_revision_follows_an_at_sign(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    hub.names = ("t3_cfg.safetensors", "README.md")
    for model in ("standard@0a1b2c", "someone/finetune@v1.2", "standard:someone/finetune@refs/pr/3", "standard"):
        assert opened(model, tmp_path, hub=hub).spec == STANDARD
    assert list(dict.fromkeys(hub.revisions)) == ["0a1b2c", "v1.2", "refs/pr/3", PUBLISHED["standard"].commit]


def test_a_repository_with_several_models_needs_the_name_of_one(tmp_path: Path) -> None:
    hub = ScriptedHub(tmp_path / "hub")
    hub.names = ("t3_cfg.safetensors", "t3_mtl23ls_v2.safetensors", "s3gen.safetensors")
    with pytest.raises(CheckpointError, match=r"2 files of T3's weights .*as in standard:someone/all"):
        opened("someone/all", tmp_path, hub=hub)
    assert opened("multilingual-v2:someone/all", tmp_path, hub=hub).spec == MULTILINGUAL_V2
    hub.names = ("model.gguf",)
    with pytest.raises(CheckpointError, match=r"0 files of T3's weights \(none\)"):
        opened("someone/all", tmp_path, hub=hub)


def test_a_downloaded_repository_is_used_without_a_hub(tmp_path: Path) -> None:
    cached = fill_folder(tmp_path / "cached", STANDARD)
    hub = ScriptedHub(tmp_path, cached=[tmp_path, cached], error=HubUnreachable("a/b", "ConnectionError"))
    assert opened("someone/finetune", tmp_path, hub=hub).folder == cached
    with pytest.raises(HubUnreachable):
        opened("someone/finetune", tmp_path)


def test_a_folder_with_several_models_needs_the_name_of_one(tmp_path: Path) -> None:
    folder = fill_folder(fill_folder(tmp_path / "all", STANDARD), MULTILINGUAL)
    with pytest.raises(CheckpointError, match=r"exactly one of .*choose with standard:FOLDER"):
        opened(str(folder), tmp_path)
    for spec in (STANDARD, MULTILINGUAL):
        assert opened(f"{spec.name}:{folder}", tmp_path).spec == spec


def shapes_of(path: Path, spec: ModelSpec, text_vocab: int) -> None:
    """A T3 file with what a model is recognised by."""
    blocks = [f"tfmr.layers.{layer}.input_layernorm.weight" for layer in range(spec.t3.layers)]
    tensors = [(name, np.zeros(1, np.float32)) for name in blocks]
    write_tensors(path, [*tensors, ("text_emb.weight", np.zeros((text_vocab, spec.t3.width), np.float32))])


@pytest.mark.parametrize(("spec", "rows"), [(STANDARD, 704), (MULTILINGUAL, 2454), (MULTILINGUAL, 2352)])
def test_a_fine_tune_of_another_name_is_recognised_by_its_shapes(tmp_path: Path, spec: ModelSpec, rows: int) -> None:
    folder = fill_folder(tmp_path / "pack", spec)
    (folder / spec.t3_file).unlink()
    shapes_of(folder / "t3_latam.safetensors", spec, rows)
    checkpoint = opened(str(folder), tmp_path)
    assert (checkpoint.spec.name, checkpoint.spec.t3.text_vocab) == (spec.name, rows)
    assert checkpoint.t3_path == folder / "t3_latam.safetensors"
    with pytest.raises(CheckpointError, match="exactly one of"):
        opened(f"turbo:{folder}", tmp_path)


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)
def test_a_folder_is_recognised_by_its_t3_file(tmp_path: Path, spec: ModelSpec) -> None:
    checkpoint = opened(str(fill_folder(tmp_path / "folder", spec)), tmp_path)
    assert (checkpoint.spec, checkpoint.random_weights, checkpoint.notice) == (spec, False, "")
    assert checkpoint.t3_path.is_file()
    assert checkpoint.conds_path == tmp_path / "folder" / "conds.pt"


def test_a_folder_without_or_with_two_t3_files_is_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "folder", TURBO)
    (folder / TURBO.t3_file).rename(folder / "t3_other.safetensors")
    with pytest.raises(CheckpointError, match=r"t3_turbo_v1\.safetensors.* expected, found .*t3_other\.safetensors"):
        open_folder(folder)
    fill_folder(fill_folder(folder, TURBO), NANO)
    with pytest.raises(CheckpointError, match=r"exactly one of .*found .*t3_nano_v1.*t3_turbo_v1"):
        open_folder(folder)


def test_a_folder_names_all_its_missing_files(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "folder", TURBO)
    for name in ("ve.safetensors", "merges.txt"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"turbo checkpoint also needs ve\.safetensors, merges\.txt$"):
        open_folder(folder)


@pytest.mark.parametrize("model", ["turbine", "/no/such/folder", "a/b/c", "nano:", ""])
def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path: Path, model: str) -> None:
    known = "auto, turbo, nano, standard, multilingual, multilingual-v2, tiny, random:turbo, random:nano, random:tiny"
    with pytest.raises(CheckpointError, match=f"OWNER/NAME .*{known}"):
        opened(model, tmp_path)


def test_unknown_random_weights_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'random:huge'.* random:turbo, random:nano, random:tiny"):
        opened("random:huge", tmp_path)


def test_random_weights_are_made_once_per_seed(tmp_path: Path) -> None:
    generator = FewBytes()
    first, again = (opened("random:tiny", tmp_path, generator=generator) for _ in range(2))
    assert first == again
    assert generator.made == [("tiny", 3)]
    assert first.folder.name == "random-tiny-s3-r1"
    assert first.random_weights
    assert "noise" in first.notice
    assert opened(str(first.folder), tmp_path) == first


def test_weights_of_other_code_or_version_are_not_reused(tmp_path: Path) -> None:
    for code, version in (("code 1", 1), ("code 2", 1), ("code 2", 2)):
        generator = FewBytes(code)
        generator.version = version
        folder = materialise(TINY, 0, tmp_path, generator)
        assert generator.made == [("tiny", 0)]
        assert json.loads((folder / "random.json").read_text())["fingerprint"] == code


def test_truncated_weights_are_made_again(tmp_path: Path) -> None:
    folder = materialise(TINY, 0, tmp_path, FewBytes())
    whole = (folder / "ve.safetensors").read_bytes()
    (folder / "ve.safetensors").write_bytes(whole[:-1])
    generator = FewBytes()
    assert materialise(TINY, 0, tmp_path, generator) == folder
    assert generator.made
    assert (folder / "ve.safetensors").read_bytes() == whole


def test_a_full_disk_is_reported_and_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No space left on device.*MYNAH_CACHE_DIR"):
        materialise(TINY, 0, tmp_path, BrokenGenerator())
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*Permission denied.*MYNAH_CACHE_DIR"):
        materialise(TINY, 0, tmp_path / "cache", FewBytes())


def test_a_file_in_the_place_of_the_cache_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot be written to .*cache .*MYNAH_CACHE_DIR"):
        materialise(TINY, 0, tmp_path / "cache", FewBytes())


class WaitingGenerator(FewBytes):
    """Stops halfway until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go_on = threading.Event(), threading.Event()

    def fill(self, folder: Path, spec: ModelSpec, seed: int) -> None:
        (folder / "half").write_bytes(b"x")
        self.started.set()
        assert self.go_on.wait(30)
        super().fill(folder, spec, seed)


def test_a_second_process_waits_and_uses_the_same_folder(tmp_path: Path) -> None:
    slow, second = WaitingGenerator(), FewBytes()
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda g=g: results.append(materialise(TINY, 0, tmp_path, g))) for g in (slow, second)
    ]
    threads[0].start()
    assert slow.started.wait(30)
    threads[1].start()
    assert not (tmp_path / "random-tiny-s0-r1").exists()
    slow.go_on.set()
    for thread in threads:
        thread.join(30)
    assert results == [tmp_path / "random-tiny-s0-r1"] * 2
    assert (len(slow.made), second.made) == (1, [])


KILLED = """
import sys
from pathlib import Path
from engines.model_spec import TINY
from engines.checkpoints.random_checkpoint import materialise

class Stuck:
    version = 1
    def fingerprint(self): return "code 1"
    def fill(self, folder, spec, seed):
        (folder / spec.t3_file).write_bytes(b"half")
        print("filling", flush=True)
        sys.stdin.read()

materialise(TINY, 0, Path(sys.argv[1]), Stuck())
"""


@pytest.fixture
def stuck_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    yield process
    process.kill()
    process.communicate()


def test_files_of_a_killed_process_are_never_used(tmp_path: Path, stuck_process: subprocess.Popen[str]) -> None:
    assert any(path.suffix == ".partial" for path in tmp_path.iterdir())
    stuck_process.send_signal(signal.SIGKILL)
    stuck_process.wait()
    generator = FewBytes()
    folder = materialise(TINY, 0, tmp_path, generator)
    assert generator.made
    open_folder(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{folder.name}.lock", folder.name]


def test_verify_names_every_problem_of_all_files(tmp_path: Path) -> None:
    checkpoint = open_folder(fill_folder(tmp_path / "folder", TINY))
    (checkpoint.folder / "ve.safetensors").write_bytes(b"cut")
    good = {checkpoint.t3_path: [("", {"w": (2, 3)})], checkpoint.s3gen_path: [("", {"w": (2, 3)})]}
    verify(checkpoint, good)
    bad = {
        checkpoint.t3_path: [("", {"w": (3, 2)}), ("", {"x": (1,)})],
        checkpoint.s3gen_path: [("flow.", {"w": (2, 3)})],
        checkpoint.voice_encoder_path: [("", {"w": (2, 3)})],
    }
    with pytest.raises(CheckpointError, match="not the tiny weights, 4 problems") as caught:
        verify(checkpoint, bad)
    for words in (
        "t3_tiny_v1.safetensors: w has shape (2, 3), expected (3, 2)",
        "t3_tiny_v1.safetensors: x is missing, expected (1,)",
        "s3gen_meanflow.safetensors: flow.w is missing, expected (2, 3)",
        "ve.safetensors: not a safetensors file",
    ):
        assert words in str(caught.value)


def test_the_cache_folder_follows_the_environment() -> None:
    assert default_cache_dir({"MYNAH_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert default_cache_dir({"MYNAH_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}) == Path("/b/mynah")
    assert default_cache_dir({}) == Path.home() / ".cache" / "mynah"


@pytest.mark.parametrize(("text_vocab", "first_tag"), [(50276, 50257), (320, 301)])
def test_the_random_tokenizer_fills_the_vocabulary_and_ends_with_the_tags(
    tmp_path: Path, text_vocab: int, first_tag: int
) -> None:
    write_tokenizer(tmp_path, text_vocab)
    tokenizer = TextTokenizer(tmp_path, text_vocab)
    assert tokenizer.tags == TAGS
    assert tokenizer.encode("".join(TAGS)) == tuple(range(first_tag, text_vocab))
    assert max(tokenizer.encode("any text, éß日😀")) < 256


def test_turbo_and_nano_speak_each_others_voices_and_no_others(tmp_path: Path):
    assert TURBO.voice_models == NANO.voice_models == ("turbo", "nano")
    assert TINY.voice_models == ("tiny",)
    assert Checkpoint(tmp_path, NANO).voice_models == ("turbo", "nano")
    noise = Checkpoint(tmp_path, NANO, random_weights=True)
    assert (noise.voice_model, noise.voice_models) == ("random:nano", ("random:turbo", "random:nano"))
