"""Flags among emoji, and whose they are."""

from __future__ import annotations

# ISO 3166's codes with the English names of Unicode's CLDR, as they are spoken
_TERRITORIES = """
    AC Ascension Island; AD Andorra; AE the United Arab Emirates; AF Afghanistan; AG Antigua and Barbuda; AI
    Anguilla; AL Albania; AM Armenia; AO Angola; AQ Antarctica; AR Argentina; AS American Samoa; AT Austria; AU
    Australia; AW Aruba; AX the Aland Islands; AZ Azerbaijan; BA Bosnia and Herzegovina; BB Barbados; BD
    Bangladesh; BE Belgium; BF Burkina Faso; BG Bulgaria; BH Bahrain; BI Burundi; BJ Benin; BL Saint Barthelemy;
    BM Bermuda; BN Brunei; BO Bolivia; BQ the Caribbean Netherlands; BR Brazil; BS the Bahamas; BT Bhutan; BV
    Bouvet Island; BW Botswana; BY Belarus; BZ Belize; CA Canada; CC the Cocos Islands; CD the Democratic
    Republic of the Congo; CF the Central African Republic; CG the Republic of the Congo; CH Switzerland; CI
    Ivory Coast; CK the Cook Islands; CL Chile; CM Cameroon; CN China; CO Colombia; CP Clipperton Island; CQ
    Sark; CR Costa Rica; CU Cuba; CV Cape Verde; CW Curacao; CX Christmas Island; CY Cyprus; CZ Czechia; DE
    Germany; DG Diego Garcia; DJ Djibouti; DK Denmark; DM Dominica; DO the Dominican Republic; DZ Algeria; EA
    Ceuta and Melilla; EC Ecuador; EE Estonia; EG Egypt; EH Western Sahara; ER Eritrea; ES Spain; ET Ethiopia;
    EU the European Union; FI Finland; FJ Fiji; FK the Falkland Islands; FM Micronesia; FO the Faroe Islands; FR
    France; GA Gabon; GB the United Kingdom; GD Grenada; GE Georgia; GF French Guiana; GG Guernsey; GH Ghana; GI
    Gibraltar; GL Greenland; GM the Gambia; GN Guinea; GP Guadeloupe; GQ Equatorial Guinea; GR Greece; GS South
    Georgia and South Sandwich Islands; GT Guatemala; GU Guam; GW Guinea Bissau; GY Guyana; HK Hong Kong; HM
    Heard Island and McDonald Islands; HN Honduras; HR Croatia; HT Haiti; HU Hungary; IC the Canary Islands; ID
    Indonesia; IE Ireland; IL Israel; IM the Isle of Man; IN India; IO the British Indian Ocean Territory; IQ
    Iraq; IR Iran; IS Iceland; IT Italy; JE Jersey; JM Jamaica; JO Jordan; JP Japan; KE Kenya; KG Kyrgyzstan; KH
    Cambodia; KI Kiribati; KM the Comoros; KN Saint Kitts and Nevis; KP North Korea; KR South Korea; KW Kuwait;
    KY the Cayman Islands; KZ Kazakhstan; LA Laos; LB Lebanon; LC Saint Lucia; LI Liechtenstein; LK Sri Lanka;
    LR Liberia; LS Lesotho; LT Lithuania; LU Luxembourg; LV Latvia; LY Libya; MA Morocco; MC Monaco; MD Moldova;
    ME Montenegro; MF Saint Martin; MG Madagascar; MH the Marshall Islands; MK North Macedonia; ML Mali; MM
    Myanmar; MN Mongolia; MO Macao; MP the Northern Mariana Islands; MQ Martinique; MR Mauritania; MS
    Montserrat; MT Malta; MU Mauritius; MV the Maldives; MW Malawi; MX Mexico; MY Malaysia; MZ Mozambique; NA
    Namibia; NC New Caledonia; NE Niger; NF Norfolk Island; NG Nigeria; NI Nicaragua; NL the Netherlands; NO
    Norway; NP Nepal; NR Nauru; NU Niue; NZ New Zealand; OM Oman; PA Panama; PE Peru; PF French Polynesia; PG
    Papua New Guinea; PH the Philippines; PK Pakistan; PL Poland; PM Saint Pierre and Miquelon; PN Pitcairn
    Islands; PR Puerto Rico; PS the Palestinian Territories; PT Portugal; PW Palau; PY Paraguay; QA Qatar; RE
    Reunion; RO Romania; RS Serbia; RU Russia; RW Rwanda; SA Saudi Arabia; SB the Solomon Islands; SC the
    Seychelles; SD Sudan; SE Sweden; SG Singapore; SH Saint Helena, Ascension and Tristan da Cunha; SI Slovenia;
    SJ Svalbard and Jan Mayen; SK Slovakia; SL Sierra Leone; SM San Marino; SN Senegal; SO Somalia; SR Suriname;
    SS South Sudan; ST Sao Tome and Principe; SV El Salvador; SX Sint Maarten; SY Syria; SZ Eswatini; TA Tristan
    da Cunha; TC the Turks and Caicos Islands; TD Chad; TF the French Southern and Antarctic Lands; TG Togo; TH
    Thailand; TJ Tajikistan; TK Tokelau; TL Timor Leste; TM Turkmenistan; TN Tunisia; TO Tonga; TR Turkey; TT
    Trinidad and Tobago; TV Tuvalu; TW Taiwan; TZ Tanzania; UA Ukraine; UG Uganda; UM the U S Outlying Islands;
    UN the United Nations; US the United States; UY Uruguay; UZ Uzbekistan; VA Vatican City; VC Saint Vincent
    and the Grenadines; VE Venezuela; VG the British Virgin Islands; VI the U S Virgin Islands; VN Vietnam; VU
    Vanuatu; WF Wallis and Futuna; WS Samoa; XK Kosovo; YE Yemen; YT Mayotte; ZA South Africa; ZM Zambia; ZW
    Zimbabwe
"""
_NAMES = {name[:2]: name[3:] for name in " ".join(_TERRITORIES.split()).split("; ")}
_SUBDIVISIONS = {"gbeng": "England", "gbsct": "Scotland", "gbwls": "Wales", "ustx": "Texas", "usca": "California"}
_FIRST_LETTER, _FIRST_TAG = 0x1F1E6, 0xE0000
_LETTER = "[\U0001f1e6-\U0001f1ff]"
_TAGS = "[\U000e0030-\U000e007a]+\U000e007f"
PATTERN = (
    rf"{_LETTER}{{2}}|\U0001f3f4{_TAGS}|"
    "\U0001f3f3\ufe0f?\u200d[\U0001f308\u26a7]\ufe0f?|\U0001f3f4\u200d\u2620\ufe0f?"
)


def name(flag: str) -> str:
    """Returns "flag of Japan" of a match of PATTERN, or "" for two letters that no territory has."""
    if flag[0] == "\U0001f3f3":
        return "rainbow flag" if "\U0001f308" in flag else "transgender flag"
    if flag[1] == "\u200d":
        return "pirate flag"
    if flag[0] == "\U0001f3f4":
        code = "".join(chr(ord(tag) - _FIRST_TAG) for tag in flag[1:-1])
        territory = _SUBDIVISIONS.get(code) or _NAMES.get(code[:2].upper(), "")
    else:
        territory = _NAMES.get("".join(chr(ord(letter) - _FIRST_LETTER + ord("A")) for letter in flag), "")
    return f"flag of {territory}" if territory else ""
