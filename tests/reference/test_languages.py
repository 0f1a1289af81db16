"""The front ends of Multilingual against the published package's, sentence by sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.text.languages import NAMES, chinese, front_ends, hebrew, missing_packages, prepare

upstream: Any = pytest.importorskip("chatterbox.models.tokenizers.tokenizer")

SENTENCES = {
    "ar": ("مرحبا، كيف حالك؟ أنا بخير.", "في عام ٢٠٢٤ زار ٣ أصدقاء القاهرة."),
    "da": ("Æbler, øl og ål på bordet.", "Klokken er 10:30, ikke 11."),
    "de": ("Straßenbahnen fahren über Köln.", "ÄÖÜ äöü ß – „Guten Tag!“"),
    "el": ("Καλημέρα, τι κάνεις; Είμαι καλά.", "Η ΑΘΉΝΑ είναι η πρωτεύουσα."),
    "en": ("Hello there, how are you?", "It's 5 o'clock — ﬁne… İstanbul"),
    "es": ("¿Dónde está el baño? ¡Aquí!", "El niño comió piñas."),
    "fi": ("Hyvää päivää, mitä kuuluu?", "Åbo eli Turku."),
    "fr": ("Où est l’hôtel ? À côté.", "Ça coûte 3 €, n'est-ce pas ?"),
    "he": ("שלום, מה שלומך?", "אני גר בירושלים."),
    "hi": ("नमस्ते, आप कैसे हैं? मैं ठीक हूँ।", "क़लम और ड़ोर।"),
    "it": ("Perché no? È così.", "Città e università."),
    "ja": (
        "東京へ行きます。",
        "これはペンです。はい、カメラが好き！",
        "私は学生です。葉は緑。",
        "ﾊﾝｶｸｶﾅとＡＢＣ、2024年1月。",
        "「今日は、いい天気ですね」と彼は言った。",
    ),
    "ko": ("안녕하세요, 세계!", "값이 비싸요? 네, 2만 원입니다. ", "ㄱㄴㄷ 한글과 English"),
    "ms": ("Selamat pagi, apa khabar?", "Terima kasih."),
    "nl": ("Eén café, twee cafés.", "’s Morgens vroeg."),
    "no": ("Blåbærsyltetøy på brødskiva.", "Hvor er du?"),
    "pl": ("Zażółć gęślą jaźń.", "Łódź, 5 złotych."),
    "pt": ("Não, obrigado. Amanhã é sábado.", "À noite, pão."),
    "ru": ("Привет, как дела? Всё хорошо.", "Замок на двери, а замок на горе."),
    "sv": ("Räksmörgås på ön.", "Hur mår du?"),
    "sw": ("Habari za asubuhi?", "Ninasoma kitabu."),
    "tr": ("İstanbul'da ılık bir gün. IĞDIR", "Çok güzel, değil mi?"),
    "zh": ("你好，世界！", "我喜欢在北京吃烤鸭。", "2024年1月1日，ABC公司。"),
}
assert SENTENCES.keys() == NAMES.keys()
TABLE = [
    f"{char}\t{code}"
    for char, code in (("你", "onf"), ("好", "vnd"), ("世", "pt"), ("界", "wll"), ("日", "a"), ("曰", "a"))
]


class Recorder:
    """Stands for the tokenizer's vocabulary: keeps what it is asked to encode."""

    ids: tuple[int, ...] = ()

    def encode(self, text: str) -> Recorder:
        self.text = text
        return self


def theirs(text: str, language: str, table: Path | None = None) -> str:
    """What upstream's MTLTokenizer gives its vocabulary, with the spaces that it writes as [SPACE]."""
    tokenizer = upstream.MTLTokenizer.__new__(upstream.MTLTokenizer)
    tokenizer.tokenizer = Recorder()
    if table is not None:
        tokenizer.cangjie_converter = _converter(table)
    tokenizer.encode(text, language_id=language)
    return str(tokenizer.tokenizer.text.replace(upstream.SPACE, " "))


def _converter(table: Path) -> Any:
    converter = upstream.ChineseCangjieConverter.__new__(upstream.ChineseCangjieConverter)
    converter.word2cj, converter.cj2word = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upstream, "hf_hub_download", lambda **_: str(table))
        converter._load_cangjie_mapping()
    converter.segmenter = chinese._segmenter()
    return converter


@pytest.mark.parametrize("language", sorted(SENTENCES.keys() - {"he", "zh"}))
def test_texts_are_upstreams(language: str):
    if (package := missing_packages().get(language)) is not None:
        pytest.skip(f"{package} is not installed")
    for sentence in SENTENCES[language]:
        assert prepare(sentence, language) == theirs(sentence, language)


class Pairs:
    """Stands for pkuseg, whose net is fetched from the network: every two characters are a word."""

    def cut(self, text: str) -> list[str]:
        return [text[at : at + 2] for at in range(0, len(text), 2)]


def test_chinese_is_upstreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chinese, "_segmenter", Pairs)
    monkeypatch.setattr(front_ends, "check_packages", lambda _: None)
    table = tmp_path / chinese.TABLE_FILE
    table.write_text(json.dumps(TABLE, ensure_ascii=False), encoding="utf-8")
    for sentence in SENTENCES["zh"]:
        assert prepare(sentence, "zh", tmp_path) == theirs(sentence, "zh", table)


class Vowels:
    """Stands for Dicta and its net."""

    def add_diacritics(self, text: str) -> str:
        return "\u05b8".join(text)


def test_hebrew_is_upstreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hebrew, "_dicta", lambda _: Vowels())
    monkeypatch.setattr(front_ends, "check_packages", lambda _: None)
    monkeypatch.setattr(upstream, "_dicta", Vowels())
    (tmp_path / hebrew.NET_FILE).touch()
    for sentence in SENTENCES["he"]:
        assert prepare(sentence, "he", tmp_path) == theirs(sentence, "he")
