"""How English writes."""

from __future__ import annotations

from service.stream.sentences.rules import SentenceRules, words

_NEVER_LAST = words(
    "mr mrs ms messrs mme mlle dr drs prof rev hon fr gen col maj capt cmdr lt sgt cpl adm gov sen rep pres sec'y supt "
    "insp det amb atty p.s n.b e.g i.e eg ie cf viz vs v approx ca incl esp fig figs eq eqs vol vols pp nos ch chap"
)
_MAYBE_LAST = words(
    "inc ltd co corp assoc assn bros llc plc dept univ est jr sr st ave blvd rd hwy sq mt ft pt etc al ed eds ext apt "
    "tel ph.d jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun"
)
ENGLISH = SentenceRules(
    never_last=_NEVER_LAST,
    maybe_last=_MAYBE_LAST,
    numbered=words("no n° nr c p par para art sec ex pt st op ver ref rm ste bldg approx ca")
    | _NEVER_LAST
    | _MAYBE_LAST,
    starters=words(
        "a an the this that these those there here he she it we they you i his her its our their my your who what when "
        "where why how which if but and or so then as at in on for from to with by after before although because while "
        "once since until now not no yes one some many most all both each every another such please let do does did is "
        "are was were can could would should might must have has had even still also however meanwhile finally next "
        "maybe perhaps nobody everybody everyone somebody someone nothing everything"
    ),
    after_a_time=words(
        "monday tuesday wednesday thursday friday saturday sunday january february march april june july august "
        "september october november december est edt cst cdt mst mdt pst pdt et ct mt pt gmt utc bst cet cest eastern "
        "central mountain pacific"
    ),
    titles=True,
    conjunctions="and or but nor yet so because although though while whereas when where which who that if unless "
    "until after before since than",
    prepositions="about above across against among around at behind below beside between beyond by during for from in "
    "inside into near on outside over through toward towards under with within without",
)
