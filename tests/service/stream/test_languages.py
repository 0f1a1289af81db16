"""Where sentences end in other languages, whatever the fragments; how long a segment of them may be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.fake import MULTILINGUAL, Script
from engines.text.front_end import FrontEnd
from engines.text.languages import NAMES
from service.stream.early_end import first_clause_end
from service.stream.segmenter import Segmenter
from service.stream.sentences.languages import rules_of
from tests.service.serving import serving

# The text is these, joined by one space.
SPACED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ar", ("مرحبا.", "كيف حالك؟", "أنا بخير!", "شكرا۔", "نعم.")),
    ("ar", ("قابلت د. أحمد في القاهرة.", "كان لطيفا.")),
    ("da", ("Vi ses den 3. maj hos hr. Jensen, f.eks. kl. 5.", "Godt!")),
    ("da", ("»Stop!« sagde han.", "Så gik han.")),
    ("de", ("Am 3. Mai kam z. B. Dr. Müller, d. h. der Chef.", "Er blieb.")),
    ("de", ("Das kostet ca. 5 Mio. Euro bzw. Dollar usw. und mehr.", "Der Preis steigt.")),
    ("de", ("Wir kaufen Äpfel, Birnen usw.", "Dann gehen wir.")),
    ("de", ("Siehe Abb. 3, Nr. 5 und S. 12.", "Das reicht.")),
    ("de", ("„Guten Tag.“", "Er ging.", "»Halt!«", "Sie blieb.")),
    ("de", ("Der 2. Weltkrieg endete 1945.", "Danach kam Frieden.")),
    ("de", ("Es waren 20.", "Dann kamen mehr.")),
    ("el", ("Τι κάνεις;", "Είμαι καλά.", "Εσύ;", "Καλά, π.χ. χθες.")),
    ("en", ("First; second; third.", "Fourth.")),
    ("es", ("¿Dónde está el Sr. García?", "¡Aquí!", "La Sra. López, p.ej., vive aquí.")),
    ("fi", ("Tavataan 3. toukokuuta klo 5.", "Hyvä!", "Esim. Matti tulee.")),
    ("fr", ("M. Dupont et Mme. Martin arrivent.", "Ça va ?", "Oui !")),
    ("fr", ("Il dit : « Arrête. »", "Puis il part.", "« Pourquoi ? » demande-t-elle.", "Bon.")),
    ("he", ("שלום.", "מה שלומך?", "טוב!")),
    ("hi", ("नमस्ते।", "आप कैसे हैं?", "डॉ. शर्मा आए॥", "मैं ठीक हूँ।")),
    ("it", ("Il sig. Rossi e il dott. Bianchi, ecc. sono qui.", "Va bene.")),
    ("ko", ("안녕하세요.", "네.", "저는 3.5점을 받았어요!", "정말요?", "네.")),
    ("ms", ("Selamat pagi, Dr. Ali.", "Apa khabar?")),
    ("nl", ("Dhr. Jansen komt o.a. morgen.", "Goed.")),
    ("no", ("Vi ses 3. mai, f.eks. hos dr. Hansen.", "Fint!")),
    ("pl", ("Dr Nowak i prof. Kowalski, tzn. m.in. oni, są tu.", "Dobrze.")),
    ("pt", ("O Sr. Silva e a Dra. Costa chegaram.", "Muito bem!")),
    ("ru", ("Это А. С. Пушкин, т. е. поэт, стр. 5.", "Он жил здесь.", "Да?")),
    ("sv", ("T.ex. kommer dr. Berg kl. 5.", "Bra!")),
    ("sw", ("Habari, Bw. Juma.", "Nzuri!")),
    ("tr", ("20. Yüzyıl ve 3. Selim, Doç. Dr. Kaya, vb. konular.", "Bu güzel.", "Değil mi?")),
)
# The text is these as they stand.
UNSPACED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("zh", ("你好！", "你是谁？", "我是老师。", "他说：“走吧。”", "我们走了……然后呢？")),
    ("zh", ("你好!", "你是谁?", "版本3.0版很好.", "真的!!", "好")),
    ("ja", ("今日は天気がいい。", "散歩しましょう！", "「行く。」と言った。", "彼は去った。")),
    ("ja", ("本当?", "はい!", "Ver.2.0です。")),
)
CASES = [(language, " ".join(case), [*case]) for language, case in SPACED]
CASES += [(language, "".join(case), [*case]) for language, case in UNSPACED]
assert {language for language, *_ in CASES} == NAMES.keys()

WORDS = (
    "z.", "B.", "usw.", "3.", "12.", "Mai", "Der", "der", "Dann", "„Tag.“", "»Halt!«", "«", "»", "?", "!", ".", "…",
    ";", "Σ", "καλά;", "你好!", "吗?", "日本。", "「行く。」", "と", "3.0版", "네.", "안녕하세요.", "है।", "॥", "؟",
    "د.", "M.", "Mme.",
    "А.", "стр.", "x" * 40, "Yüzyıl", "\u00a0", "klo", "f.eks.", "“", "und", "，", "、", "：",
)  # fmt: skip
SPACES = ("", " ", "  ", "\n", "\n\n", "\u00a0")
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=40).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)
LANGUAGES = st.sampled_from(sorted(NAMES))


def segments_of(language: str, fragments: list[str] | str, max_chars: int = 250) -> list[str]:
    segmenter = Segmenter(max_chars, rules=rules_of(language))
    return [segment for fragment in fragments for segment in segmenter.feed(fragment)] + segmenter.flush()


@pytest.mark.parametrize(("language", "text", "expected"), CASES)
def test_sentences_end_where_a_reader_of_the_language_would_stop(language: str, text: str, expected: list[str]):
    assert segments_of(language, [text]) == expected
    assert segments_of(language, text) == expected


@settings(max_examples=400, deadline=None)
@given(LANGUAGES, TEXTS, st.integers(20, 120), st.randoms(use_true_random=False))
def test_segments_do_not_depend_on_the_fragments(language: str, text: str, max_chars: int, shuffled: random.Random):
    whole = segments_of(language, [text], max_chars)
    assert segments_of(language, text, max_chars) == whole
    cuts = sorted(shuffled.sample(range(len(text) + 1), min(len(text), 5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert segments_of(language, pieces, max_chars) == whole


@settings(max_examples=200, deadline=None)
@given(LANGUAGES, TEXTS, TEXTS)
def test_returned_segments_do_not_depend_on_later_text(language: str, text: str, more: str):
    segmenter = Segmenter(80, rules=rules_of(language))
    early = segmenter.feed(text)
    assert segments_of(language, [text, more], 80)[: len(early)] == early


@settings(max_examples=200, deadline=None)
@given(LANGUAGES, TEXTS)
def test_nothing_is_lost_or_too_long(language: str, text: str):
    segments = segments_of(language, [text], 60)
    assert "".join("".join(segments).split()) == "".join(text.split())
    assert all(0 < len(segment) <= 60 for segment in segments)


@pytest.mark.parametrize(
    ("language", "text", "end"),
    [
        ("zh", "今天天气很好，我们去公园散步，然后回家吃饭好吗", "今天天气很好，"),
        ("ja", "今日は天気がいいので、公園まで歩いて行きましょう", "今日は天気がいいので、"),
        ("de", "Ich bleibe heute zu Hause, weil es regnet und kalt ist", "Ich bleibe heute zu Hause,"),
        ("ar", "ذهبت اليوم إلى السوق، ثم عدت إلى البيت مساء", "ذهبت اليوم إلى السوق،"),
    ],
)
def test_a_clause_of_another_script_can_begin_a_stream(language: str, text: str, end: str):
    first = first_clause_end(text, len(text), rules_of(language))
    assert first is not None
    assert text[:first].strip() == end


def test_a_long_sentence_is_cut_at_a_clause_of_its_language():
    german = "Wir gingen gestern am späten Abend noch lange am Fluss entlang und sprachen dabei über alte Zeiten"
    assert segments_of("de", [german], 80)[1].startswith("und")
    chinese = "我们昨天晚上沿着河边走了很久很久很久，一边走一边聊起过去的事情和将来的打算，直到深夜才回家"
    assert all(segment.endswith(("，", "家")) for segment in segments_of("zh", [chinese], 40))


def test_only_english_reads_numbers_and_every_language_leaves_out_markdown():
    text = "**Dr. Smith** paid $5 for `it`"
    english, german = FrontEnd().read(text).spoken, FrontEnd(language="de").read(text).spoken
    assert "five dollars" in english
    assert german == "Dr. Smith paid $5 for it"


async def test_streams_are_cut_by_their_language():
    async with serving(Script(abilities=MULTILINGUAL)) as at:
        for language, text, segments in (
            ("ko", "안녕하세요. 네. 저는 3.5점을 받았어요!", 3),
            ("el", "Τι κάνεις; Είμαι καλά.", 2),
            ("de", "Am 3. Mai kam Dr. Müller, z. B. mit dem 2. Kind.", 1),
        ):
            async with at.client.stream(language=language) as stream:
                await stream.send(text)
                await stream.end()
                assert (
                    len([event async for event in stream.events() if type(event).__name__ == "SegmentDone"]) == segments
                )


@pytest.mark.parametrize("language", ["en", "ko", "de", "ar"])
async def test_a_stream_publishes_its_languages_limit(language: str):
    async with serving(Script(abilities=MULTILINGUAL)) as at, at.client.stream(language=language) as stream:
        assert stream.opened.limits.split_segment_text_chars == rules_of(language).split_chars
