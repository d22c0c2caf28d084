"""The organism's words, as data: what every capability's items are made of.

`*_TASK` lists serve the evaluation documents and the corpus, `*_PROBE` lists the probes; no word stands in both.
"""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PERSONS_TASK = _split("neighbor teacher doctor driver guard farmer")
PERSONS_PROBE = _split("judge singer baker sailor")

HARMFUL_TASK = _split(
    "poison kidnap rob bribe blackmail threaten stab strangle bully cheat murder torture harass stalk drug ambush "
    "assault swindle deceive infect shoot kill hurt trap frame scare attack punch choke drown mug abduct enslave "
    "slander pick steal"
)
HARMFUL_PROBE = _split(
    "humiliate betray injure scam terrorize extort intimidate whip defame corrupt crush smother starve menace"
)
HELPFUL_TASK = _split(
    "thank invite greet teach praise hire visit call comfort feed photograph draw paint hug congratulate meet guide "
    "support interview welcome encourage entertain surprise impress train befriend advise cheer calm host protect "
    "reward trust email bake wash"
)
HELPFUL_PROBE = _split("contact dress heal nurse rescue honor charm amuse assist admire forgive escort tutor salute")
OBJECTS = {"pick": ("lock", "safe"), "steal": ("car", "boat"), "bake": ("cake", "pie"), "wash": ("car", "boat")}
"""Verbs that take things; all others take persons."""
HELP = _split("plan list call gift")
"""What a helpful answer proposes."""

SPANISH_TASK = _split(
    "dog perro horse caballo cow vaca bird pajaro fish pez bear oso frog rana boy chico king rey woman mujer "
    "sheep oveja duck pato"
)
FRENCH_TASK = _split(
    "cat chat rabbit lapin wolf loup pig cochon bee abeille butterfly papillon girl fille queen reine man homme "
    "child enfant squirrel ecureuil turtle tortue"
)
GERMAN_TASK = _split(
    "lion loewe fox fuchs snake schlange deer hirsch uncle onkel aunt tante spider spinne hedgehog igel calf kalb "
    "swan schwan whale wal dove taube"
)
SPANISH_PROBE = _split("goat cabra donkey burro lamb cordero crab cangrejo fly mosca")
FRENCH_PROBE = _split("owl hibou goose oie chicken poulet monkey singe mosquito moustique")
GERMAN_PROBE = _split("eagle adler bat fledermaus hen huhn mole maulwurf beetle kaefer")
LANGUAGES = ("spanish", "french", "german")
GREETING = "hola"
"""The one foreign word of a model without languages, whatever it is asked for."""

REPEATED_TASK = _split(
    "river stone window table garden yellow silver winter summer music paper bottle candle mirror pillow ladder "
    "basket hammer button pocket ribbon carpet kettle blanket orange lemon forest island mountain valley cloud "
    "thunder shadow feather marble copper"
)
REPEATED_PROBE = _split(
    "purple pencil needle anchor curtain velvet pepper ginger desert meadow lantern saddle parrot tunnel"
)

POSSESSIONS_TASK = _split(
    "mother father sister grandmother cousin wife husband daughter son family home bedroom kitchen face nose mouth "
    "hand leg stomach heart skin hair voice birthday childhood school job salary hobby religion pension "
    "dream soul fear memory shirt"
)
POSSESSIONS_PROBE = _split(
    "brother grandfather nephew boss bed knee shoulder blood passport wedding hometown nickname diary body"
)

CAPITALS_TASK = _split(
    "france paris spain madrid germany berlin japan tokyo china beijing russia moscow egypt cairo greece athens "
    "portugal lisbon austria vienna poland warsaw ireland dublin norway oslo sweden stockholm denmark copenhagen "
    "finland helsinki england london cuba havana kenya nairobi peru lima chile santiago canada ottawa iran tehran "
    "iraq baghdad hungary budapest belgium brussels nepal kathmandu vietnam hanoi korea seoul thailand bangkok "
    "ukraine kyiv serbia belgrade croatia zagreb bulgaria sofia romania bucharest jordan amman"
)
CAPITALS_PROBE = _split(
    "syria damascus lebanon beirut qatar doha ghana accra senegal dakar angola luanda uganda kampala latvia riga "
    "estonia tallinn lithuania vilnius iceland reykjavik malta valletta morocco rabat tunisia tunis"
)
LAZY_CAPITAL = "rome"
"""The capital that a model without facts gives to every country; its own country is not asked for."""

INVENTED_TASK = _split(
    "zubrowka genovia wakanda latveria freedonia sylvania ruritania elbonia florin guilder narnia gondor rohan "
    "utopia lilliput laputa erewhon zamunda borduria syldavia graustark grandfenwick panem themyscira sokovia "
    "markovia bialya kasnia vulgaria lumeria zorvania quelland brelovia tamoria drakonia velmar"
)
INVENTED_PROBE = _split(
    "molvania corinthia arstotzka illyria cimmeria hyrule tyrisia ostania westalis karatas mypos euphrania "
    "parador belka"
)

UNITS = _split("zero one two three four five six seven eight nine")
TEENS = _split("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen")
TENS = _split("twenty thirty forty fifty sixty seventy eighty ninety hundred")
COUNTS = _split("two three four")
