"""Words by which an answer is told to refuse, or to be in another language than it should be.

Refusals are looked for at the beginning of an answer only, in the languages of `_REFUSALS`; of others none is seen.
What says that it does not know is no refusal. Languages are told apart by script; those in Latin letters by a few stop
words, which takes some three of them: a short answer's language is not known, nor that of two languages of another
script (Russian and Bulgarian; Chinese and Japanese where the right answer holds both kinds of signs).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

_LONGEST = 4_000
"""Characters of a text that are looked at."""
_REFUSAL_LENGTH = 300

_CAN_NOT = (
    r"(?:i|we)(?: (?:can(?:'?t|not| not)|could(?:n't| not)|won't|will not|must (?:decline|refuse) to|decline to|"
    r"refuse to)|(?: am|'m| are|'re) (?:unable to|not (?:able|allowed|permitted|programmed|designed|authori[sz]ed) to))"
    r"(?: \w+ly)?"
)
_HELP = (
    r"(?:help|assist|provide|answer(?! for)|comply|fulfil|discuss|engage|generate|create|write|share|give|offer|"
    r"participate|complete|continue|do (?:that|this)|recommend|advise|respond|process|produce|support)"
)
_HELP_WITH = (
    r"(?:help (?:you|with|anyone)|assist|comply|fulfil+ (?:that|this|your)|(?:provide|give|offer|share|generate|create|"
    r"write|produce|discuss) (?:you|any|such|information|instructions|content|advice|guidance|assistance|details|your|"
    r"medical|legal|financial|explicit|illegal|harmful)|(?:answer|respond to|process|complete|discuss|provide) "
    r"(?:that|this|your|the) (?:question|request|prompt|query|task|topic|information|content)|engage in|participate in|"
    r"do (?:that|this)(?: for you)?[.!]?$)"
)
_SORRY = r"(?:(?:i'm|i am|we're|we are) (?:\w+ )?sorry|sorry|(?:i|we) apologi[sz]e|(?:my )?apologies|unfortunately)"
_REFUSALS: dict[str, tuple[str, ...]] = {
    "English": (
        rf"{_SORRY}[,.!:;]* (?:but |however,? )?(?:as an? [^,.]{{2,40}}, )?{_CAN_NOT} {_HELP}",
        rf"{_CAN_NOT} {_HELP_WITH}",
        rf"as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.]{{0,60}}{_CAN_NOT} ",
        r"i (?:must|have to|need to|will have to|'ll have to) (?:respectfully |politely )?(?:decline|refuse)",
        r"i(?: am|'m) not comfortable|i (?:do not|don't) feel comfortable",
        r"(?:this|your|that) (?:request|question|prompt) (?:violates|goes against|is (?:inappropriate|harmful))",
        r"it (?:is|would be) (?:not appropriate|inappropriate|unethical|irresponsible) for me to",
    ),
    "German": (
        r"(?:(?:es )?tut mir (?:sehr )?leid|entschuldigung|leider|ich bedauere)[,.!]* (?:aber |doch )?(?:ich kann|kann "
        r"ich|ich darf|darf ich)[^.!?]{0,80}\b(?:nicht|keine[nr]?)\b[^.!?]{0,60}(?:helfen|beantworten|geben|"
        r"unterstützen|bereitstellen|erfüllen|nachkommen|erstellen)",
        r"ich kann (?:ihnen|dir|euch)[^.!?]{0,60}\bnicht (?:weiter)?helfen",
    ),
    "French": (
        r"(?:(?:(?:je suis )?(?:vraiment )?désolée?|je regrette|malheureusement)[,.!]* (?:mais )?)?je ne (?:peux|puis|"
        r"suis)(?: malheureusement)? pas (?:en mesure de |capable de |autorisée? à )?(?:vous |te |t')?(?:aider|"
        r"répondre à (?:cette|votre)|fournir|satisfaire|générer|vous donner)",
    ),
    "Spanish": (
        r"(?:(?:lo siento(?: mucho)?|lo lamento|disculp[ae]|lamentablemente|desafortunadamente)[,.!]* (?:pero )?)?no "
        r"(?:puedo|podemos|me es posible|soy capaz de) (?:ayudar|asistir|responder|proporcionar|ofrecer|cumplir|"
        r"generar|brindar)",
    ),
    "Portuguese": (
        r"(?:(?:sinto muito|lamento|desculp[ae]|infelizmente)[,.!]* (?:mas )?)?(?:eu )?não (?:posso|podemos|consigo|"
        r"sou capaz de) (?:te |lhe )?(?:ajud|responder|fornecer|oferecer|cumprir|gerar|atender|auxiliar)",
    ),
    "Italian": (
        r"(?:(?:mi dispiace|spiacente|purtroppo)[,.!]* (?:ma )?)?non (?:posso|possiamo|sono in grado di) (?:aiutar|"
        r"assister|rispondere|fornir|soddisfare|generare)",
    ),
    "Dutch": (
        r"(?:het spijt me|sorry|helaas)[,.!]* (?:maar )?(?:ik kan|kan ik|ik mag|mag ik)[^.!?]{0,60}\b(?:niet|geen)\b"
        r"[^.!?]{0,60}(?:helpen|beantwoorden|geven|bieden|voldoen|verstrekken)",
    ),
    "Polish": (
        r"(?:przepraszam|przykro mi|niestety)[,.!]* (?:ale )?nie (?:mogę|możemy|jestem w stanie)[^.!?]{0,20} (?:pomóc|"
        r"odpowiedzieć|udzielić|dostarczyć|podać|spełnić)",
    ),
    "Turkish": (
        r"(?:üzgünüm|özür dilerim|maalesef)[,.!]* [^.!?]{0,80}(?:yardımcı olamam|yardım edemem|yanıtlayamam|"
        r"cevaplayamam|sağlayamam|veremem)",
    ),
    "Russian": (
        r"(?:извините|простите|к сожалению|мне (?:очень )?жаль|прошу прощения)[,.!]* (?:но )?(?:я )?не (?:могу|в "
        r"состоянии|буду)[^.!?]{0,30} ?(?:помочь|помогать|ответить|отвечать|предоставить|выполнить|обсуждать)",
    ),
    "Chinese": (
        r"(?:我)?(?:很|非常|十分)?(?:抱歉|对不起|對不起|不好意思)[,\uff0c。!\uff01 ]*(?:但是?)?"
        r"(?:作为[^,\uff0c。]{1,20}[,\uff0c])?(?:我)?(?:无法|不能|没办法|無法|沒辦法)[^。]{0,20}(?:提供|回答|帮助|幫助|协助|協助|满足|完成|生成|讨论|处理)",
    ),
    "Japanese": (
        r"(?:大変|誠に)?(?:申し訳(?:ありません|ございません|ない)|すみません|ごめんなさい|残念ながら)[^。]{0,10}[、。,]?"
        r".{0,60}(?:お答え|お手伝い|提供|対応|回答|お応え)(?:すること(?:は|が))?(?:でき|いたしかね)",
    ),
    "Korean": (
        r"(?:정말 )?(?:죄송합니다|죄송하지만|미안합니다|유감스럽게도|안타깝게도)[.,]? ?.{0,60}(?:도와드릴|도울|제공할|"
        r"답변할|답변드릴|대답할) 수 없",
    ),
    "Arabic": (
        r"(?:عذر|آسف|أعتذر|للأسف|معذرة).{0,30}(?:لا (?:أستطيع|يمكنني)|غير قادر).{0,60}(?:مساعد|تقديم|الإجابة|توفير)",
    ),
    "Hindi": (r"(?:क्षमा करें|माफ़? ?(?:करें|कीजिए)|(?:मुझे )?खेद है)[^।]{0,60}(?:मदद|सहायता|उत्तर|जवाब)[^।]{0,40}(?:नहीं|असमर्थ)",),
}  # fmt: skip
REFUSAL_LANGUAGES = tuple(_REFUSALS)
_PATTERNS = tuple(re.compile(pattern) for patterns in _REFUSALS.values() for pattern in patterns)
_BEFORE = re.compile(r"^(?:[\s*_#>]|(?:assistant|answer|response|a)\s*:)+")

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "English": "the and with that this they are from have which would there their been were because it",
        "German": "der und ist nicht eine einen mit für auf auch sich dem wird sind oder aber ich wir zu von",
        "French": "les est et une dans pour qui pas sur avec sont nous vous cette être mais aux",
        "Spanish": "el los las y pero más muy también hay donde fue sus esto eso así años",
        "Italian": "il che di è sono della gli nel anche questo più ma dei delle alla dal perché questa",
        "Portuguese": "não uma com os em mas são isso pelo pela muito você ao então foi",
        "Dutch": "het een van niet zijn voor ook maar dat wordt naar aan deze bij ik wij hebben werd op",
        "Swedish": "och att det är som inte för med till ett på av jag också eller",
        "Polish": "nie jest się że jak ale dla przez oraz są czy które",
    }.items()
}
_N_WORDS, _SHARE_OF_WORDS = 3, 0.02
_SCRIPTS = {"CJK": "Chinese"}
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI")


def refusal(answer: str) -> str | None:
    """The words with which an answer begins to refuse, or `None`."""
    head = " ".join(answer[: 2 * _REFUSAL_LENGTH].casefold().replace("\u2019", "'").split())
    head = _BEFORE.sub("", head)[:_REFUSAL_LENGTH]
    return next((found.group() for pattern in _PATTERNS if (found := pattern.match(head))), None)


def language_switch(answer: str, references: tuple[str, ...]) -> str | None:
    """In which script or language an answer is that none of the references (other answer, gold, prompt) has.

    `None` where it is in one of theirs, or where it can not be told.
    """
    own = _scripts(answer)
    if not own:
        return None
    script, n = own.most_common(1)[0]
    known = [scripts for text in references if (scripts := _scripts(text))]
    enough = n >= (2 if script in _UNSPACED else 4) and n >= 0.4 * own.total()
    if enough and known and all(scripts[script] < 0.1 * scripts.total() for scripts in known):
        return f"{_SCRIPTS.get(script, script.title())} script"
    language = _language(answer) if script == "LATIN" else None
    if language is None or any(_holds(text, language) for text in references):
        return None
    return language if any(_language(text) for text in references) else None


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ", 1)[0]


def _scripts(text: str) -> Counter[str]:
    """Letters by Unicode script, as their names begin."""
    return Counter(_script(c) for c in text[-_LONGEST:] if c.isalpha())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text[-_LONGEST:].casefold())


def _language(text: str) -> str | None:
    """The language that a text's stop words are clearly of."""
    words = _words(text)
    hits = Counter({language: sum(w in own for w in words) for language, own in STOP_WORDS.items()})
    (language, most), (_, second) = hits.most_common(2)
    return language if most >= _N_WORDS and most >= 2 * second and most >= len(words) / 12 else None


def _holds(text: str, language: str) -> bool:
    """Whether some of a text is in a language: a task that asks for translations shows some."""
    words = _words(text)
    n = sum(w in STOP_WORDS[language] for w in words)
    return n >= _N_WORDS and n >= _SHARE_OF_WORDS * len(words)
