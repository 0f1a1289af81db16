"""Kinds of text that reach speech servers: answers of language models, chats, logs, code, scripts, odd characters.

How such text is best read is the front end's affair. Here it must come to an end, lose no word, and make no error.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A text, words that must be spoken in this order, and the most segments that it may become."""

    text: str
    keeps: tuple[str, ...]
    most_segments: int = 8


_BAR = "=" * 60
KINDS: dict[str, Kind] = {
    "a table": Kind(
        "| City | People |\n|------|--------|\n| Paris | many |\n| Rome | fewer |\n\nThat is all.",
        ("City", "Paris", "Rome", "That is all"),
    ),
    "a table of boxes": Kind("┌──────┬─────┐\n│ Name │ Age │\n└──────┴─────┘\nDone.", ("Name", "Age", "Done")),
    "tabs between columns": Kind("name\tvalue\nspeed\thigh\n", ("name", "value", "speed", "high")),
    "lines of commas": Kind("first,second,third\n,,,\nlast,one,here", ("first", "third", "last", "here")),
    "formulas of LaTeX": Kind(
        r"The root is $x = \frac{-b \pm \sqrt{b^2}}{2a}$, and \[ E = mc^2 \] follows.", ("The root", "follows")
    ),
    "a block of code": Kind(
        "Use this:\n```python\ndef hello(name):\n    return f'{name}!'\n```\nIt works.", ("Use this", "It works")
    ),
    "code in a line": Kind("Call `open()` and then `close()` again.", ("Call", "and then", "again")),
    "a shell": Kind("$ sudo rm -rf /tmp/x && echo 'done' | tee log.txt\n# ready", ("sudo", "done", "ready")),
    "JSON": Kind('{"status": "good", "items": [{"name": "apple"}], "next": null}', ("status", "good", "apple")),
    "a stack trace": Kind(
        'Traceback (most recent call last):\n  File "main.py", line 3, in <module>\nValueError: bad value',
        ("Traceback", "File", "bad value"),
    ),
    "HTML": Kind("<div class='a'><p>Hello <b>dear</b> reader.</p></div>", ("Hello", "dear", "reader")),
    "addresses": Kind("See https://example.com/a/b?c=d&e=%20f#top for more.", ("See", "for more")),
    "an e-mail": Kind("Write to jane.doe+news@example.co.uk, please.", ("Write to", "please")),
    "paths": Kind(r"Open C:\Users\me\notes.txt or ~/notes, please.", ("Open", "please")),
    "an identifier": Kind("The id 550e8400-e29b-41d4-a716-446655440000 is yours.", ("The id", "is yours")),
    "letters of base 64": Kind("Key: " + "QUJDRA" * 40 + " end.", ("Key", "end"), 30),
    "lists in lists": Kind(
        "1. First\n   - inner\n     * deepest\n2) Second\n• Third", ("First", "inner", "deepest", "Third")
    ),
    "boxes to tick": Kind("- [x] milk\n- [ ] bread", ("milk", "bread")),
    "quotes in quotes": Kind("“She said, ‘He said, “No.”’” Then silence.", ("She said", "No", "Then silence")),
    "a dialogue": Kind("—Who is it?\n—Me.\n«Come in!» he said.", ("Who is it", "Me", "Come in", "he said")),
    "capitals": Kind("STOP DOING THAT RIGHT NOW OR ELSE!!!", ("STOP", "RIGHT NOW", "ELSE")),
    "capitals in turn": Kind("wHaT iS tHiS sUpPoSeD tO bE", ("wHaT", "tHiS")),
    "marks again and again": Kind("What?!?!?!?!?!?! No........ Why,,,,, oh;;;;", ("What", "No", "Why", "oh")),
    "letters again and again": Kind("Nooooooooooooooooooooo! Hahahahahahahaha.", ("Nooooooooo", "Hahahaha")),
    "a word again and again": Kind("very " * 60 + "good.", ("very", "good"), 20),
    "lines of signs": Kind(f"Title\n{_BAR}\n~~~~~~\nBody text.", ("Title", "Body text")),
    "a drawing": Kind("Look: (╯°□°)╯︵ ┻━┻ and ¯\\_(ツ)_/¯ there.", ("Look", "there")),
    "a chat": Kind("[12:04] <bob> brb lol\n[12:05] <ann> k, ttyl xx", ("bob", "ann")),
    "a log": Kind("2024-05-01T10:00:00.123Z ERROR [main] disk failed (code=5)", ("disk failed",)),
    "subtitles": Kind("1\n00:00:01,000 --> 00:00:02,500\nHello there.\n\n2\n", ("Hello there",)),
    "stage directions": Kind("*sighs* Fine. (laughs) I will go. [pause]", ("Fine", "I will go")),
    "tags of roles": Kind("<|im_start|>assistant\nSure.<|im_end|>", ("Sure",)),
    "marks of footnotes": Kind(
        "Water boils[1] at sea level.[2][citation needed] Yes¹.", ("Water boils", "sea level", "Yes")
    ),
    "right to left between": Kind("He said שלום and مرحبا to us.", ("He said", "to us")),
    "marks of direction": Kind("\u202bright\u202c \u2066inner\u2069 \u200eleft\u200f.", ("right", "inner", "left")),
    "joiners of no width": Kind("co\u200doper\u200bate with\u2060out pause.", ("pause",)),
    "letters of full width": Kind("Ｈｅｌｌｏ world, ok？", ("world", "ok")),
    "letters of mathematics": Kind("𝗕𝗼𝗹𝗱 and 𝒾𝓉𝒶𝓁𝒾𝒸 plain.", ("and", "plain")),
    "letters that look alike": Kind("Pаypаl with Сyrillic а inside.", ("with", "inside")),
    "marks on marks": Kind("Z\u0351\u036b\u0343a\u0363\u034cl\u0348\u035ag\u0321o is here.", ("is here",)),
    "a letter in two parts": Kind("cafe\u0301 and nai\u0308ve", ("and",)),
    "a very long word": Kind("Pneumonoultramicroscopicsilicovolcanoconiosis" * 6 + " hurts.", ("hurts",), 40),
    "emoji in a row": Kind("Nice 😀😃😄😁😆😅 work 👩🏽‍💻🏳️‍🌈🇩🇪 team.", ("Nice", "work", "team")),
    "other scripts between": Kind(
        "Tokyo is 東京, Moscow is Москва, Seoul is 서울.", ("Tokyo is", "Moscow is", "Seoul is")
    ),
    "money and measures": Kind("It costs $1,234.56 or €9,99 for 5kg at 20°C (±3%).", ("It costs", "for")),
    "numbers of many digits": Kind("Pi is 3." + "14159265358979" * 8 + ", roughly.", ("Pi is", "roughly"), 20),
    "a number to call": Kind("Call +1 (555) 010-9999 ext. 5 today.", ("Call", "today")),
    "Roman numbers": Kind("Louis XIV met Henry VIII in act III.", ("Louis", "met", "act")),
    "abbreviations": Kind("Dr. Smith vs. Mr. Jones, Inc., e.g. at 5 p.m. on St. John St.", ("Smith", "Jones")),
    "breaks in words": Kind("This is a hy-\nphenated word and a semi\u00adcolon.", ("This is a", "word and a")),
    "characters of control": Kind("One\x07 two\x1b[31m three\x7f.", ("One", "two", "three")),
    "ends of lines of all kinds": Kind(
        "One.\rTwo.\r\nThree.\x0bFour.\x85Five.\u2029Six.", ("One", "Two", "Three", "Six")
    ),
    "spaces of all kinds": Kind("One\u00a0two\u2003three\u3000four\u202ffive.", ("One", "four", "five")),
}
