"""The tokenizer of a checkpoint folder: byte-level BPE or words and pieces, with paralinguistic tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing

from engines.checkpoints.json_file import read_object
from engines.errors import CheckpointError

# The files that a tokenizer may consist of; tokenizer.json, or vocab.json and merges.txt, are required.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)

_GPT2_SPECIAL = "<|endoftext|>"
_SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TextTokenizer:
    """The tokenizer of a checkpoint folder, equal to transformers' AutoTokenizer for the same files.

    Unlike that one, it never truncates text at `model_max_length`, and a word that is too long for a WordPiece model
    is encoded in parts instead of becoming the token of the unknown.
    """

    def __init__(self, folder: Path, text_vocab: int) -> None:
        """Read tokenizer.json, or vocab.json and merges.txt, and the declared added tokens.

        Raises CheckpointError if a file is missing or invalid, or if an id is not below `text_vocab`, the number of
        rows of T3's text embedding.
        """
        self._tokenizer = _build(folder)
        self._check_ids(folder, text_vocab)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._special = {token.content for token in added if token.special} | {"<unk>", "[UNK]"}

    def offsets(self, text: str) -> tuple[tuple[int, int], ...]:
        """Returns the characters of normalised text that each of its text tokens stands for, as [start, stop)."""
        return tuple(self._tokenizer.encode(text).offsets)

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the text tokens of normalised text; a tag such as [laugh] is one token."""
        return tuple(self._tokenizer.encode(text).ids)

    def encodes_words(self, text_tokens: tuple[int, ...]) -> bool:
        """Whether one of `text_tokens` stands for a letter, a digit or a tag: unknown characters and marks do not."""
        return any(
            token is not None and token not in self._special and any(char.isalnum() for char in token)
            for token in map(self._tokenizer.id_to_token, text_tokens)
        )

    def decode(self, text_tokens: tuple[int, ...]) -> str:
        """Returns the text of `text_tokens`, including tags."""
        return str(self._tokenizer.decode(list(text_tokens), skip_special_tokens=False))

    @property
    def tags(self) -> tuple[str, ...]:
        """The tokenizer's paralinguistic tags in the order of their ids."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return tuple(token.content for token in added if token.content.startswith("["))

    def _check_ids(self, folder: Path, text_vocab: int) -> None:
        vocab: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        beyond = sorted((i, token) for token, i in vocab.items() if i >= text_vocab)
        if beyond:
            shown = ", ".join(f"{token!r} = {i}" for i, token in beyond[:5])
            raise CheckpointError(
                f"{folder}: {len(beyond)} ids of the tokenizer are beyond T3's text vocabulary of {text_vocab}: {shown}"
            )


def _build(folder: Path) -> Any:
    try:
        config = _read_json(folder / "tokenizer_config.json")
        whole = (folder / "tokenizer.json").is_file()
        tokenizer = _read_whole(folder) if whole else _read_parts(folder)
        if isinstance(tokenizer.pre_tokenizer, ByteLevel):
            # the configuration overrides tokenizer.json, as in transformers
            tokenizer.pre_tokenizer.add_prefix_space = bool(config.get("add_prefix_space", False))
        _add_tokens(tokenizer, folder, config)
        if not whole and config.get("add_bos_token", False):
            _prepend_bos(tokenizer, _content(_special_roles(folder, config)["bos_token"]))
        return tokenizer
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{folder}: the tokenizer files cannot be read ({error})") from error


def _read_whole(folder: Path) -> Any:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    longest_word = getattr(tokenizer.model, "max_input_chars_per_word", None)
    if longest_word is not None:
        parts = Split(Regex(rf"\S{{{longest_word}}}"), "isolated")
        tokenizer.pre_tokenizer = Sequence([tokenizer.pre_tokenizer, parts] if tokenizer.pre_tokenizer else [parts])
    return tokenizer


def _read_parts(folder: Path) -> Any:
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"no tokenizer: {' and '.join(missing)} missing; tokenizer.json, or vocab.json with merges.txt, is expected"
        )
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    # without the version in the first line and the empty string after the last line feed
    merges = [tuple(line.split()) for line in lines[1:-1]]
    vocab = _read_json(folder / "vocab.json")
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    return tokenizer


def _prepend_bos(tokenizer: Any, bos: str) -> None:
    special = [(bos, tokenizer.token_to_id(bos))]
    tokenizer.post_processor = TemplateProcessing(single=f"{bos}:0 $A:0", special_tokens=special)


def _add_tokens(tokenizer: Any, folder: Path, config: dict[str, Any]) -> None:
    """Declared tokens in the order of their ids, then the special ones (this order decides the ids of new tokens)."""
    declared = _declared(folder, config)
    present = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    missing = [token for _, token in sorted(declared.items()) if repr(token) not in present]
    known = {token.content for token in (*declared.values(), *tokenizer.get_added_tokens_decoder().values())}
    special = [_as_token(role) for role in _special_roles(folder, config).values()]
    missing += [token for token in special if token.content not in known]
    names = {token.content for token in special}
    for token in missing:
        token.special = token.special or token.content in names
    tokenizer.add_tokens(missing)
    _check_declared(tokenizer, declared)


def _check_declared(tokenizer: Any, declared: dict[int, Any]) -> None:
    """T3's embedding rows are trained for the declared ids: with another id, T3 would speak another word."""
    moved = {token.content: index for index, token in declared.items() if tokenizer.token_to_id(token.content) != index}
    if moved:
        shown = ", ".join(f"{name!r} = {i}, got {tokenizer.token_to_id(name)}" for name, i in list(moved.items())[:5])
        raise CheckpointError(f"added tokens do not continue the vocabulary where they are declared: {shown}")


def _declared(folder: Path, config: dict[str, Any]) -> dict[int, Any]:
    """Returns AddedTokens by id, from tokenizer_config.json or from the files of older checkpoints."""
    if "added_tokens_decoder" in config:
        return {int(i): AddedToken(**fields) for i, fields in config["added_tokens_decoder"].items()}
    special = {_content(role) for role in _special_roles(folder, config).values()}
    declared = {
        index: AddedToken(content, normalized=content not in special, special=content in special)
        for content, index in _read_json(folder / "added_tokens.json").items()
    }
    for fields in _read_json(folder / "tokenizer.json").get("added_tokens", []):
        declared[fields.pop("id")] = AddedToken(**fields)
    return declared


def _special_roles(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the special tokens (bos, eos, ...), each a string or a dictionary of AddedToken's fields, in order."""
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _GPT2_SPECIAL) | config
    if "added_tokens_decoder" not in config:  # transformers reads special_tokens_map.json for older checkpoints only
        roles |= _read_json(folder / "special_tokens_map.json")
    named = {key: roles[key] for key in _SPECIAL_ROLES if roles.get(key) is not None}
    others = roles.get("additional_special_tokens") or []
    return named | {f"additional {i}": role for i, role in enumerate(others)}


def _content(role: Any) -> str:
    return str(role["content"] if isinstance(role, dict) else role)


def _as_token(role: Any) -> Any:
    if isinstance(role, dict):
        fields = {key: value for key, value in role.items() if key != "__type"}
        return AddedToken(**(fields | {"special": True}))
    return AddedToken(role, special=True)


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the file's object, or {} if the file does not exist. Raises CheckpointError if it is not JSON."""
    return read_object(path) if path.exists() else {}
