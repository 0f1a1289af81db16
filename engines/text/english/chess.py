"""Moves of chess in algebraic notation: Nf3, Qxd5+, O-O."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal
from engines.text.english.rule import Rule, rule

_PIECES = {"K": "king", "Q": "queen", "R": "rook", "B": "bishop", "N": "knight"}
_MOVE = (
    r"(?:(?P<piece>[KQRBN])(?P<from>[a-h1-8])?(?P<takes>x)?|(?P<pawn>[a-h])x)(?P<file>[a-h])(?P<rank>[1-8])"
    r"(?:=(?P<promoted>[QRBN]))?(?P<check>[+#])?(?![\w-])"
)
_CASTLES = r"(?P<castles>[O0]-[O0](?:-[O0])?)(?P<check>[+#])?(?![\w-])"
_MOVES = re.compile(rf"(?<![\w-])(?:{_MOVE}|[a-h][1-8](?![\w-])|[O0]-[O0](?![\w]))")
_CHECKS = {"+": " check", "#": " checkmate"}


def _is_alone(text: str) -> bool:
    """Whether a text has one move only, which may be something else: Bb5, 0-0."""
    return len(_MOVES.findall(text)) < 2


def _move(match: re.Match[str]) -> str | None:
    takes = match["takes"] or match["pawn"]
    if not takes and _is_alone(match.string):
        return None
    words = [_PIECES[match["piece"]] if match["piece"] else match["pawn"]]
    if match["from"]:
        words.append(cardinal(match["from"]) if match["from"].isdecimal() else match["from"])
    if takes:
        words.append("takes")
    words += [match["file"], cardinal(match["rank"])]
    if match["promoted"]:
        words.append(f"promotes to {_PIECES[match['promoted']]}")
    return " ".join(words) + _checked(match["check"])


def _castles(match: re.Match[str]) -> str | None:
    if "0" in match["castles"] and _is_alone(match.string):
        return None
    side = "queenside" if match["castles"].count("-") == 2 else "kingside"
    return f"castles {side}" + _checked(match["check"])


def _checked(sign: str | None) -> str:
    return _CHECKS[sign] if sign else ""


RULES: tuple[Rule, ...] = (rule(rf"(?<![\w-]){_MOVE}", _move), rule(rf"(?<![\w-]){_CASTLES}", _castles, needs="-"))
