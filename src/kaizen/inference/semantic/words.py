"""What the gate knows of English words: closed classes, and how their members stand to each other.

Words are in lower case. Made by hand from general knowledge of the language; nothing was fitted to any data.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that carry no content of their own.
FUNCTION: Final = _words("""
a an the this that these those there here it its itself i me my mine myself we us our ours ourselves you your
yours yourself one ones oneself someone somebody anyone anybody everyone everybody people person they them their
theirs themselves be am is are was were been being do does did done doing have has had having can could will
would shall should may might must ought need to of in on at by for with from as into onto upon about through via
over per up out off and or but nor so yet if whether then than because while since though although what which
who whom whose when where why how not no never none neither cannot without nothing nobody just really actually
very quite rather also too ever even still only already etc ie eg vs versus some any each every all both either
such own same other another else explain exactly basically literally currently now go get got
""")

# Words that seldom change what would be answered: they weigh less in what one text has and the other has not.
LIGHT: Final = _words("""
best good great better nice well easy easily simple simply proper properly effective effectively way method mean
meaning thing stuff kind type sort various several many much more most lot few get make use take give find know
think feel want like help tell say see look become happen work start begin possible able always usually often
actual specific certain different particular question answer advice tip idea example reason world life today
nowadays day time recommend suggest suggestion recommendation currently
""")

NEGATIONS: Final = _words("not no never none neither nor without nobody nothing nowhere hardly barely scarcely cannot")

# One text has it and the other has not: they speak of different cases, or times.
RELATIONS: Final = _words("before after during until till while except besides against behind beyond despite unless")

# Words of other languages than English, none of them English.
FOREIGN: Final = _words("""
el los las que y en una es por para como cómo qué está le les des est et une du je vous pour comment quel quelle
der das und ist nicht ein eine wie ich zu mit auf den dem il gli che di perché è sono um uma não os você het een
van ik niet
""")

PAST: Final = _words("""
did was were had won lost went gave took came saw said knew thought found told kept felt met paid sent built spent
began broke chose drove ate fell forgot grew heard led ran spoke stood stole swam taught threw understood woke wore
wrote became brought caught fought drew flew bought sold happened died
""")

# Each stands against its partner: where one text has the one and the other text the other, they ask different things.
_ANTONYMS: Final = """
above below|absolute relative|accelerate brake|accelerate decelerate|accept decline|accept refuse|accept reject|
acid base|activate deactivate|add delete|add remove|advantage disadvantage|agree disagree|alive dead|all none|
allow deny|allow forbid|allow prevent|always never|always sometimes|analog digital|ancient modern|
appear disappear|append remove|approve deny|approve reject|arrival departure|arrive depart|ascend descend|
ascending descending|ask answer|assemble disassemble|asset liability|attach detach|attack defend|attack defense|
backup restore|before after|begin end|begin finish|benefit drawback|benefit harm|benefit risk|best worst|
better worse|big small|bigger smaller|birth death|block unblock|born die|boss employee|boy girl|
boyfriend girlfriend|breakfast dinner|breakfast lunch|bright dark|brother sister|build demolish|buy sell|
buyer seller|cancel book|cancel confirm|cancel keep|cancel order|cancel renew|capitalism communism|
capitalism socialism|cause cure|cause effect|cause prevent|cause result|cheap expensive|cheaper dearer|
check uncheck|clean dirty|client server|combine separate|commit revert|common rare|compress decompress|
connect disconnect|connect separate|conservative liberal|construct demolish|correct incorrect|create delete|
create destroy|credit debit|customer vendor|day night|deep shallow|democrat republican|deposit withdraw|
deposit withdrawal|difficult easy|doctor patient|domestic foreign|domestic international|earlier later|
early late|earn spend|easier harder|east west|employed unemployed|employer employee|enable disable|encode decode|
encrypt decrypt|engage disengage|enter exit|enter leave|everyone nobody|everything nothing|expand collapse|
expand contract|expire renew|fast slow|faster slower|fat thin|fill empty|first last|fixed variable|fold unfold|
follow unfollow|free paid|freeze melt|freeze thaw|freeze unfreeze|frequent rare|friend enemy|front back|
frontend backend|full empty|gain lose|gain lost|gentleman lady|give receive|give take|god devil|good bad|
good evil|grant deny|grant revoke|gross net|grow shrink|guy girl|happy sad|happy unhappy|hard easy|hard soft|
he she|healthy sick|healthy unhealthy|heat cool|heaven hell|help harm|help hurt|hero villain|hide show|high low|
higher lower|him her|hire fire|hire quit|his her|host guest|hot cold|hotter colder|husband wife|import export|
improve worsen|include exclude|include omit|income expense|increase decrease|increase drop|increase reduce|
indoor outdoor|inflation deflation|input output|insert delete|insert remove|inside outside|install uninstall|
internal external|introvert extrovert|join leave|join split|keep delete|keep discard|keep remove|king queen|
known unknown|landlord tenant|large small|laugh cry|leader follower|left right|legal illegal|lend borrow|
length width|lengthen shorten|light dark|light heavy|lighter heavier|like dislike|liquid gas|live die|
load unload|local global|local remote|lock unlock|login logout|long short|longer shorter|love hate|lunch dinner|
major minor|male female|man woman|manual automatic|many few|marry divorce|max min|maximise minimise|
maximize minimize|maximum minimum|merge split|mom dad|moral immoral|more fewer|more less|morning evening|
morning night|most least|mother father|mount unmount|mum dad|mute unmute|natural artificial|near far|north south|
old new|old young|older younger|on off|online offline|open close|optimist pessimist|optional mandatory|
optional required|organic inorganic|over under|parent child|pass fail|past future|pause resume|
permanent temporary|permit forbid|pin unpin|plug unplug|positive negative|possible impossible|present absent|
previous next|pro con|problem solution|profit loss|promote demote|proton electron|public private|push pull|
put remove|question answer|quick slow|quit continue|raise lower|read write|refund charge|rich poor|richer poorer|
right wrong|rise fall|row column|safe dangerous|safe unsafe|save spend|save waste|select deselect|send receive|
senior junior|simple complex|simple complicated|single married|single multiple|singular plural|solid liquid|
son daughter|sooner later|spring autumn|spring fall|start finish|start stop|stop continue|stop resume|
strength weakness|strengthen weaken|strong weak|stronger weaker|subscribe unsubscribe|succeed fail|
success failure|summer winter|sunrise sunset|supply demand|tall short|teach learn|teacher student|
theory practice|thick thin|tighten loosen|top bottom|true false|uncle aunt|up down|upload download|upper lower|
urban rural|vertical horizontal|virtual physical|visible invisible|voluntary mandatory|vowel consonant|war peace|
warm cool|weight height|wet dry|wide narrow|widen narrow|win lose|win lost|winner loser|wired wireless|
wrap unwrap|yesterday tomorrow|zip unzip
"""
ANTONYMS: Final = tuple(tuple(pair.split()) for pair in _ANTONYMS.split("|"))

# Members of one class exclude each other: red is not blue, Monday not Tuesday, a PDF no CSV.
_CLASSES: Final = """
january february march april may june july august september october november december |
monday tuesday wednesday thursday friday saturday sunday weekday weekend |
red orange yellow green blue purple violet pink brown black white grey gray |
north south east west |
second minute hour day week month year decade century hourly daily weekly monthly quarterly yearly annual
annually |
km m cm mm mi ft in. yard |
kg g lb oz tonne ton |
l ml gal |
kb mb gb tb |
celsius fahrenheit kelvin |
rupee dollar euro sterling yen yuan franc peso bitcoin |
english french german spanish italian portuguese russian chinese mandarin cantonese japanese korean arabic hindi
urdu bengali tamil telugu turkish dutch polish greek hebrew latin swedish norwegian danish finnish thai
vietnamese indonesian malay persian |
python java javascript typescript ruby php perl rust go golang kotlin swift scala haskell c c++ c# matlab r sql
bash powershell html css |
windows linux mac macos ios android ubuntu debian fedora chromeos iphone ipad |
chrome firefox safari edge opera |
facebook instagram twitter whatsapp snapchat linkedin youtube tiktok telegram skype quora reddit pinterest
tumblr |
google microsoft apple amazon netflix uber flipkart samsung sony nokia motorola huawei xiaomi lenovo dell hp
asus acer |
gmail yahoo outlook hotmail icloud |
visa mastercard paypal stripe |
pdf csv json xml yaml xlsx excel docx word png jpg jpeg gif svg mp3 mp4 wav zip |
mysql postgresql postgres sqlite oracle mongodb redis cassandra mariadb |
aws azure gcp heroku |
math mathematics physics chemistry biology history geography economics psychology philosophy sociology astronomy
law medicine engineering accounting |
football soccer cricket tennis basketball baseball hockey golf rugby volleyball badminton chess swimming boxing |
guitar piano violin drum flute cello trumpet |
dog cat horse cow pig sheep goat bird fish snake lion tiger bear wolf rabbit hamster elephant monkey chicken
duck mouse rat |
apple banana mango grape lemon strawberry pear peach cherry pineapple watermelon |
coffee tea milk beer wine whisky whiskey vodka juice soda |
beef pork lamb mutton fish prawn shrimp egg tofu |
breakfast lunch dinner supper brunch |
car bike bicycle motorcycle bus train plane airplane ship boat truck taxi scooter |
mother father brother sister son daughter uncle aunt grandmother grandfather cousin nephew niece husband wife
girlfriend boyfriend |
eye ear nose mouth tooth tongue neck shoulder arm hand finger chest stomach belly back leg knee foot toe skin
hair face head heart liver kidney lung brain |
bachelor master phd doctorate diploma mba |
christian christianity islam muslim hindu hinduism buddhism buddhist jew jewish judaism sikh sikhism atheist
atheism |
mercury venus earth mars jupiter saturn uranus neptune pluto sun moon |
gold silver copper iron aluminium aluminum platinum bronze steel titanium |
hydrogen helium oxygen nitrogen carbon sodium calcium potassium magnesium chlorine |
spring summer autumn winter |
morning noon afternoon evening night midnight |
today yesterday tomorrow tonight |
add subtract multiply divide |
sine cosine tangent |
mean median mode variance |
get post put patch delete |
email sms phone fax |
username password |
laptop desktop tablet smartphone |
wifi bluetooth ethernet |
billing shipping |
credit debit |
bronze silver gold platinum |
ceo cto cfo coo
"""
CLASSES: Final = tuple(_words(members) for members in _CLASSES.split("|"))

# Their last letters look like a superlative's.
NO_SUPERLATIVE: Final = _words("""
best most interest test request invest latest west guest quest rest suggest honest forest protest contest digest
harvest nest pest chest vest arrest modest manifest priest west midwest budapest everest pinterest unrest gest
fest manifest ingest congest attest detest infest bequest conquest inquest zest jest lest crest wrest
""")
