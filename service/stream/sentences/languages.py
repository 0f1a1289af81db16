"""How the other languages write: their abbreviations, ordinals, quotes, and words that begin a clause or a sentence."""

from __future__ import annotations

import re
from functools import cache

from service.stream.sentences.english import ENGLISH
from service.stream.sentences.rules import CLOSERS, SentenceRules, words


def _rules(
    never: str = "", maybe: str = "", numbered: str = "", starters: str = "", conjunctions: str = "", **more: object
) -> SentenceRules:
    never_last, maybe_last = words(f"dr prof {never}"), words(maybe)
    return SentenceRules(
        never_last=never_last,
        maybe_last=maybe_last,
        numbered=words(numbered) | never_last | maybe_last,
        starters=words(starters),
        conjunctions=conjunctions,
        **more,  # type: ignore[arg-type]
    )


# Quotes as „German“ and »Danish« has them close with what opens elsewhere.
_RULES: dict[str, SentenceRules] = {
    "ar": SentenceRules(split_chars=180),
    "da": _rules(
        never="hr fr frk f.eks fx bl.a ca dvs d.v.s jf mht pga",
        maybe="osv o.s.v etc mv m.v kl mio mia kr",
        numbered="nr s kap art stk",
        conjunctions="og eller men fordi hvis når som at mens",
        ordinals="small",
        closers="«“",
    ),
    "de": _rules(
        never="hr fr frl dipl ing mag z.b d.h u.a o.ä s.o s.u i.d.r m.e bzw bspw ca vgl inkl exkl evtl ggf sog "
        "zzgl geb gest st str o.g v.a u.u z.t z d u o i v",
        maybe="usw usf etc u.s.w o.dgl v.chr n.chr chr co jr sen mio mrd tsd",
        numbered="nr s bd kap abs art abb tab ziff anm aufl jh jhd min std kl",
        starters="der die das ein eine einer eines er sie es wir ihr ich du man dies diese dieser dieses dieses "
        "dann da dort hier und oder aber doch denn wenn als ob weil was wer wo wie warum wann danach darauf dabei "
        "dazu nun jetzt heute gestern morgen auch nur so seit nach bei mit für im in am an auf zu zum zur ist war "
        "sind haben hat kann alle alles viele nicht kein keine ja nein bitte trotzdem deshalb daher außerdem "
        "schließlich",
        conjunctions="und oder aber denn sondern weil dass wenn als obwohl während damit bevor nachdem bis ob sowie",
        ordinals="all",
        closers="“‘«‹",
    ),
    "el": _rules(
        never="κ κα κος κκ αρ βλ δηλ π.χ τηλ",
        maybe="κ.λπ κλπ κ.ά κτλ μ.μ π.μ",
        numbered="σελ αρ",
        conjunctions="και ή αλλά γιατί όταν που αν ενώ ώστε",
        questions=";\u037e",
        strong_clause=re.compile(rf"[:·\u0387][{re.escape(CLOSERS)}]*(?=\s)|\s?—\s?|\s[-–]\s"),
    ),
    "en": ENGLISH,
    "es": _rules(
        never="sr sra srta sres d dª dña ud uds vd lic ing gral p.ej ej aprox av avda c fdo",
        maybe="etc ee.uu jr cía s.a a.m p.m a.c d.c",
        numbered="n.º nº núm pág págs art cap vol",
        conjunctions="y e o u pero porque aunque cuando que si mientras donde como sino",
    ),
    "fi": _rules(
        never="esim mm ns ts ks vrt n",
        maybe="jne yms ym klo ekr jkr",
        numbered="s nro luku",
        conjunctions="ja tai mutta koska jos kun että vaikka joka sekä",
        ordinals="small",
    ),
    "fr": _rules(
        never="m mm mme mmes mlle mlles me mgr st ste p.ex ex env cf av boul apr",
        maybe="etc cie j.-c jc",
        numbered="n n° p pp art chap fig vol no",
        conjunctions="et ou mais donc car parce que qui quand si lorsque puisque comme où",
        spaced_quotes=True,
    ),
    "he": SentenceRules(split_chars=180),
    "hi": _rules(never="डॉ श्री सुश्री प्रो पं कृ", conjunctions="और या लेकिन क्योंकि कि जब अगर तो"),
    "it": _rules(
        never="sig sigg sig.ra sig.na dott dott.ssa avv ing arch on es p.es ca gent spett",
        maybe="ecc etc a.c d.c s.p.a",
        numbered="n nr p pag pagg art cap fig vol",
        conjunctions="e ed o ma perché quando che se mentre dove come però oppure",
    ),
    "ja": SentenceRules(unspaced=True, split_chars=100),
    "ko": SentenceRules(split_chars=120),
    "ms": _rules(
        never="en pn cik dato datuk tn hj",
        maybe="dll dsb",
        numbered="no hlm",
        conjunctions="dan atau tetapi kerana jika apabila yang",
    ),
    "nl": _rules(
        never="dhr mw mevr drs ir ing mr bijv bv d.w.z o.a m.a.w ca resp evt incl excl zgn",
        maybe="enz etc e.d v.chr n.chr jr",
        numbered="nr blz p art hfdst",
        conjunctions="en of maar want omdat als toen terwijl dat die",
    ),
    "no": _rules(
        never="hr fr f.eks bl.a ca dvs jf pga mht",
        maybe="osv o.s.v etc m.m kl kr mill",
        numbered="nr s kap art",
        conjunctions="og eller men fordi hvis når som at mens",
        ordinals="small",
        closers="«“",
    ),
    "pl": _rules(
        never="p mgr inż lek hab ks św np tzw tj m.in ww wg al ul pl",
        maybe="itd itp in r n.e p.n.e godz zł",
        numbered="nr s str art ust pkt rozdz ok tys mln mld",
        conjunctions="i oraz lub albo ale bo ponieważ gdy jeśli że który która które",
        ordinals="small",
    ),
    "pt": _rules(
        never="sr sra srta srs dra d dom exmo eng av r p.ex ex aprox",
        maybe="etc cia ltda s.a a.c d.c jr",
        numbered="n.º nº núm pág págs art cap vol",
        conjunctions="e ou mas porque quando que se enquanto onde como porém",
    ),
    "ru": _rules(
        never="г гг гр т им ул пр д кв акад доц см ср напр т.е т.н т.к",
        maybe="др пр т.д т.п руб коп тыс млн млрд н.э",
        numbered="стр с гл рис табл п ст №",
        conjunctions="и или но а потому если когда что который которая которые чтобы пока",
        closers="“«",
    ),
    "sv": _rules(
        never="hr fr t.ex bl.a ca dvs d.v.s jfr p.g.a m.a.o",
        maybe="osv o.s.v etc m.m kl kr milj",
        numbered="nr s kap",
        conjunctions="och eller men för eftersom om när som att medan",
    ),
    "sw": _rules(never="bw bi", maybe="n.k", numbered="na uk", conjunctions="na au lakini kwa kama kwamba"),
    "tr": _rules(
        never="av sn bkz örn yrd doç alb yay",
        maybe="vb vs vd m.ö m.s a.ş",
        numbered="no s cilt",
        starters="bu şu o ben sen biz siz onlar ama ve sonra fakat çünkü eğer bir her hiç daha en şimdi bugün dün "
        "yarın evet hayır ne neden nasıl kim nerede",
        conjunctions="ve veya ama fakat çünkü eğer ki",
        ordinals="all",
    ),
    "zh": SentenceRules(unspaced=True, split_chars=80),
}


@cache
def rules_of(language: str) -> SentenceRules:
    """Returns the rules of a language by its code; those of a language that is not known have no words."""
    return _RULES.get(language) or SentenceRules()
