"""Text that sentence splitters get wrong. Each case is the list of its segments."""

from __future__ import annotations

# The text is these, joined by one space.
SPACED_CASES: tuple[tuple[str, ...], ...] = (
    # plain
    ("Hello there.", "How are you?", "I am fine!", "Good."),
    ("hello there.", "how are you?", "fine, thanks."),
    ("Really?!", "Yes!!!", "No way..."),
    ("I am tired.", "Are you?"),
    # titles, names, initials
    ("Mr. Smith met Dr. Jones and Prof. Lee.", "They talked."),
    ("Mrs. and Ms. Brown live on St. James Street.",),
    ("I saw Gen. Grant, Sen. Warren and Rep. Lewis in Ft. Worth.", "It was hot."),
    ("J. R. R. Tolkien wrote it.", "C. S. Lewis read it."),
    ("George W. Bush and John F. Kennedy were presidents.",),
    ("Martin Luther King Jr. spoke in Washington.", "We listened."),
    ("He is called John Smith Jr.", "He lives here."),
    ("It is Mt. Everest, not St. Helens.",),
    ("It is, I think, Plan B.", "We need it."),
    ("So do I.", "The others don't."),
    # abbreviations
    ("Use a tool, e.g. a hammer, i.e. something heavy.", "Then stop."),
    ("Many animals (e.g. Dogs, Cats) live here.",),
    ("It was Smith vs. Jones, cf. the report, approx. ten pages.",),
    ("Bring pens, paper, etc. and a chair.",),
    ("Bring pens, paper, etc.", "We start at nine."),
    ("See Fig. 3 and pp. 12 to 14 of vol. 2.", "It is clear there."),
    ("Apple Inc. and Acme Corp. signed with Smith & Co. on Monday.",),
    ("She works at Apple Inc.", "She likes it."),
    ("The U.S. Army met the U.N. delegation.",),
    ("I live in the U.S.", "It is large."),
    ("He has a Ph.D. in physics.", "She has an M.A. too."),
    ("In 44 B.C. Caesar died.",),
    ("The dept. of health is at 12 Main St. near the park.",),
    ("It happened on Jan. 5 and on Sept. 9.", "Nobody noticed."),
    # numbers and times
    ("Pi is about 3.14159.", "The price is $5.00.", "It fell by .5 percent."),
    ("It grew from 1,000.50 to 2.000,75 units.",),
    ("Version 2.0.1 is out.", "Version 3.0 is next."),
    ("He was born in 1999.", "2020 was a bad year."),
    ("No. 5 is alive.", "I said no.", "Then I left."),
    ("The server is at 192.168.0.1.", "Call it."),
    ("We meet at 5 p.m. on Friday.",),
    ("We meet at 5 p.m. Friday at the corner.",),
    ("It closes at 5:30 p.m.", "Please be early."),
    ("At 10:45 a.m. EST the bell rang.",),
    # lists
    ("1. Open the door.", "2. Walk in.", "3. Sit down."),
    ("a) Take the pan.", "b) Heat the oil."),
    # addresses of machines
    ("Visit www.example.com.", "Then call me."),
    ("See https://example.com/a.b/c?d=e.f&g=h!i for more.", "It helps."),
    ("Mail john.doe@example.co.uk.", "He answers."),
    ("Open the file main.py.", "Then run setup.cfg through it."),
    ("It is written in Node.js and ASP.NET.", "It runs on .NET Core."),
    # quotes, brackets, tags
    ('He said, "Stop."', "Then he ran."),
    ('"Stop!" he said.', '"Why?" she asked.'),
    ("“Is it you?” she asked.", "“Yes.”"),
    ("He laughed (very loudly!) and left.", "(Nobody cared.)", "It was late."),
    ("They call it 'the end.'", "Nobody knows why."),
    ("[laugh] That is funny.", "[sigh] Oh well."),
    ("Wait [clear throat] a moment.", "Now."),
    # ellipses and dashes
    ("Well... I don't know... maybe.", "Let me think."),
    ("I waited… and waited.", "Nothing came."),
    ("And so it ended...", "Nobody spoke."),
    ("He . . . he fell.", "We ran."),
    ("Who—if anyone—knows?", "Not me."),
    # other languages
    ("La casa es azul.", "¿Dónde está?", "¡Aquí!"),
    ("Étienne parle.", "À bientôt!"),
    ("Привет.", "Как дела?"),
    ("यह एक वाक्य है।", "यह दूसरा है।"),
    ("مرحبا.", "كيف حالك؟", "بخير."),
    ("Great!", "🎉 See you."),
)

# The text is these as they stand; white space at a segment's end is not part of it.
RAW_CASES: tuple[tuple[str, ...], ...] = (
    ("今日は天気がいい。", "散歩しましょう。"),
    ("你好！", "你是谁？", "我是老师。"),
    ("「行く。」と言った。", "彼は去った。"),
    ("Headline without a stop\n\n", "The text begins."),
    ("You need:\n", "- eggs\n", "- flour\n", "Then mix."),
    ("Steps:\n", "1. Open it\n", "2. Close it"),
    ("# Getting started\n", "Open the box."),
    ("First things.\n", "## what you need\n", "a screwdriver"),
    ("**Ingredients:**\n", "two eggs"),
    ("**Bold** words are\nwrapped here.",),
    ("The History of Rome\n", "It began small."),
    ("Chapter One\n", "1815 was cold."),
    ("I met John\nSmith there.",),
    ("Intro\n", "---\n", "The text."),
    ("* one\n", "* two\n", "+ three\n", "Four."),
    ("A line that is wrapped\nbefore Paris ends here.\n", "Next."),
)
