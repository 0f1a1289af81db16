"""How a text in another language is read: respellings, pauses, emoji, Markdown and SSML, and no English words."""

from __future__ import annotations

import pytest

from engines.errors import InvalidInput
from engines.text.dictionary import Dictionary, Entry
from service.stream.segmenter import Segmenter
from service.stream.sentences.languages import rules_of
from service.stream.settings import Markup, TextSettings
from service.stream.text.items import Pause
from service.stream.text.reader import TextReader, Utterance
from service.stream.text.spoken_limits import SpokenLimits


def read(text: str, language: str, **settings: object) -> list[str | float]:
    """What is spoken, and the pauses in seconds, whole and letter by letter."""
    results = []
    for fragments in ([text], text):
        rules = rules_of(language)
        limits = SpokenLimits(250, 1000, len, rules)
        chosen = TextSettings(normalize=True, **settings)  # type: ignore[arg-type]
        reader = TextReader(Segmenter(rules=rules), chosen, limits, language)
        items = [item for fragment in fragments for item in reader.feed(fragment)] + reader.flush()
        spoken: list[str | float] = []
        for item in items:
            if isinstance(item, Utterance):
                spoken.append(item.reading.spoken)
            elif isinstance(item, Pause):
                spoken.append(item.duration_s)
        results.append(spoken)
    assert results[0] == results[1]
    return results[0]


def test_numbers_stay_and_markdown_and_pauses_do_not():
    assert read("Das **kostet** 5 € [pause:0.5s] am 3. Mai.", "de") == ["Das kostet 5 €", 0.5, "am 3. Mai."]
    assert read("这**很好**。[pause:1s]再见。", "zh") == ["这很好。", 1.0, "再见。"]


@pytest.mark.parametrize(
    ("language", "text", "entry", "spoken"),
    [
        ("de", "Der nginx läuft.", Entry("nginx", "Endschin Ex"), "Der Endschin Ex läuft."),
        ("zh", "我在重庆银行工作。", Entry("重庆", "崇庆"), "我在崇庆银行工作。"),
        ("ja", "東京へ行く。", Entry("東京", "とうきょう"), "とうきょうへ行く。"),
        ("el", "Ο Θ. ήρθε στη ΔΕΗ.", Entry("ΔΕΗ", "δεή θεά"), "Ο Θ. ήρθε στη δεή θεά."),
    ],
)
def test_respellings_work_in_every_script(language: str, text: str, entry: Entry, spoken: str):
    assert read(text, language, dictionary=Dictionary((entry,))) == [spoken]


def test_english_phonemes_are_still_refused():
    with pytest.raises(InvalidInput, match="phonetic"):
        Dictionary((Entry("thin", "θin"),))


def test_say_as_has_no_words_in_another_language():
    text = '<speak>Nummer <say-as interpret-as="cardinal">5</say-as>.</speak>'
    with pytest.raises(InvalidInput, match="whose language is de") as raised:
        read(text, "de", markup=Markup.SSML)
    assert raised.value.reason == "SSML_UNSUPPORTED"
    assert read(text, "de", markup=Markup.SSML_LENIENT) == ["Nummer 5."]
    assert read(text, "en", markup=Markup.SSML) == ["Nummer five."]


def test_other_elements_work_in_every_language():
    text = '<speak>Guten Tag. <break time="500ms"/> <sub alias="zum Beispiel">z. B.</sub> so.</speak>'
    assert read(text, "de", markup=Markup.SSML) == ["Guten Tag.", 0.5, "zum Beispiel so."]
