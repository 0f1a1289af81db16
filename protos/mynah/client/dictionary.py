"""The text form of a pronunciation dictionary: one `word = respelling` in each line."""

from __future__ import annotations

from mynah.client.errors import InvalidArgument
from mynah.client.settings import DictionaryEntry


def parse_dictionary(content: str, where: str = "dictionary") -> tuple[DictionaryEntry, ...]:
    """Returns the entries; a word in double quotes regards case. Empty lines and those that begin with "#" are left
    out. Raises InvalidArgument, which names the line. The server checks the words.
    """
    entries = []
    for number, line in enumerate(content.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, _, respelling = (part.strip() for part in line.partition("="))
        if not word or not respelling:
            allowed = "word = respelling"
            message = f"{where}, line {number} is {line.strip()[:80]!r}; it must be {allowed}."
            raise InvalidArgument(
                message, reason="DICTIONARY_ENTRY_INVALID", field="text.dictionary", value=line[:80], allowed=allowed
            )
        quoted = len(word) > 2 and word[0] == word[-1] == '"'
        entries.append(DictionaryEntry(word[1:-1] if quoted else word, respelling, quoted))
    return tuple(entries)
