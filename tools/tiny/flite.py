"""flite as a teacher: a sentence -> its waveform, its phones with times, the words they belong to, and its pitch.

Calls Debian's libflite through ctypes, because its command line tells no word boundaries. Knows nothing of codes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import CDLL, POINTER, RTLD_GLOBAL, Structure, c_char_p, c_float, c_int, c_short, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F0_FRAME_S = 0.005
_PITCH_CHANNEL = 0  # of the parameter track that a statistical voice leaves behind


@dataclass(frozen=True)
class Phone:
    name: str
    end_s: float
    word: int  # index into the sentence's words separated by white space; -1 between words


@dataclass(frozen=True)
class Utterance:
    samples: npt.NDArray[np.int16]
    rate_hz: int
    phones: tuple[Phone, ...]
    f0_hz: npt.NDArray[np.float32]  # every 5 ms, 0 where unvoiced


class _Wave(Structure):
    _fields_ = (
        ("type", c_char_p),
        ("rate_hz", c_int),
        ("count", c_int),
        ("channels", c_int),
        ("samples", POINTER(c_short)),
    )


class _Track(Structure):
    _fields_ = (
        ("type", c_char_p),
        ("frames", c_int),
        ("channels", c_int),
        ("times", POINTER(c_float)),
        ("values", POINTER(POINTER(c_float))),
    )


class _Features(Structure):
    _fields_ = (("features", c_void_p), ("functions", c_void_p), ("relations", c_void_p))


class Flite:
    """One voice of flite's statistical ones: rms, slt or awb."""

    def __init__(self, voice: str) -> None:
        self._lib = CDLL("libflite.so.1", mode=RTLD_GLOBAL)
        for name in ("usenglish", "cmulex"):
            CDLL(f"libflite_{name}.so.1", mode=RTLD_GLOBAL)
        self._lib.flite_init()
        register = getattr(CDLL(f"libflite_cmu_us_{voice}.so.1"), f"register_cmu_us_{voice}")
        register.restype = c_void_p
        self._voice = register(None)
        self._synthesise = self._call("flite_synth_text", c_void_p, c_char_p, c_void_p)
        self._delete = self._call("delete_utterance", None, c_void_p)
        self._wave = self._call("utt_wave", POINTER(_Wave), c_void_p)
        self._relation = self._call("utt_relation", c_void_p, c_void_p, c_char_p)
        self._head = self._call("relation_head", c_void_p, c_void_p)
        self._next = self._call("item_next", c_void_p, c_void_p)
        self._as = self._call("item_as", c_void_p, c_void_p, c_char_p)
        self._parent = self._call("item_parent", c_void_p, c_void_p)
        self._text = self._call("item_feat_string", c_char_p, c_void_p, c_char_p)
        self._number = self._call("item_feat_float", c_float, c_void_p, c_char_p)
        self._feature = self._call("feat_val", c_void_p, c_void_p, c_char_p)
        self._track = self._call("val_track", POINTER(_Track), c_void_p)

    def _call(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._lib, name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def speak(self, text: str) -> Utterance:
        """`text` in ASCII, words separated by single spaces."""
        utterance = self._synthesise(text.encode("ascii"), self._voice)
        try:
            wave = self._wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (wave.count,)).copy()
            return Utterance(samples, wave.rate_hz, tuple(self._phones(utterance)), self._f0_hz(utterance))
        finally:
            self._delete(utterance)

    def _phones(self, utterance: int) -> Iterator[Phone]:
        words: dict[int, int] = {}
        segment = self._head(self._relation(utterance, b"Segment"))
        while segment:
            word = self._word(segment)
            index = -1 if word is None else words.setdefault(word, len(words))
            yield Phone(self._text(segment, b"name").decode(), float(self._number(segment, b"end")), index)
            segment = self._next(segment)

    def _word(self, segment: int) -> int | None:
        """What stands for the word as written: the parent in the Token relation of the word that was spoken."""
        item = self._as(segment, b"SylStructure")
        for _ in range(2):  # syllable, word
            item = item and self._parent(item)
        token = item and self._as(item, b"Token")
        parent: int | None = token and self._parent(token)
        return parent

    def _f0_hz(self, utterance: int) -> npt.NDArray[np.float32]:
        features = ctypes.cast(utterance, POINTER(_Features)).contents.features
        track = self._track(self._feature(features, b"param_track")).contents
        return np.array([track.values[i][_PITCH_CHANNEL] for i in range(track.frames)], np.float32)
