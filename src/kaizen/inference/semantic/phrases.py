"""What the gate knows of English phrases: contractions, and ways of asking that others express as well.

Made by hand from general knowledge of the language; nothing was fitted to any data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CONTRACTIONS: Final[Mapping[str, str]] = {
    "can't": "can not", "cannot": "can not", "cant": "can not", "won't": "will not", "wont": "will not",
    "shan't": "shall not", "ain't": "is not", "dont": "do not", "doesnt": "does not", "didnt": "did not",
    "isnt": "is not", "arent": "are not", "wasnt": "was not", "couldnt": "could not", "shouldnt": "should not",
    "wouldnt": "would not", "hasnt": "has not", "havent": "have not", "let's": "let us", "whats": "what is",
    "hows": "how is", "wheres": "where is", "whos": "who is", "im": "i am", "ive": "i have", "gonna": "going to",
    "wanna": "want to", "gotta": "got to", "pls": "please", "plz": "please", "u": "you", "ur": "your",
    "thru": "through", "w/o": "without",
}  # fmt: skip

_WHO: Final = "(you|someone|anyone|anybody|somebody)"
_ONE: Final = "(i|we|you|one|someone|people|a person)"
_WAY: Final = "(way|ways|method|methods|procedure|steps|process|trick|tricks)"

# A word without which the pattern can't be found, the pattern, and what takes its place. Run once, in this order.
_REPHRASED: Final = (
    (
        "",
        r"^((hi|hello|hey|dear|ok|okay|so|well|and|but|also|quick question)( (there|all|team|everyone|guys))?\b ?)+",
        "",
    ),
    ("thank", r"\b(thanks|thank you|many thanks)( (so|very) much| a lot| in advance)?( for .*)?$", ""),
    ("please", r"\bplease\b", ""),
    ("kindly", r"\bkindly\b", ""),
    (
        "",
        rf"^(can|could|would|will) {_WHO} (just |also )?(tell|show|explain to|help|teach|let|give)"
        r"( me| us)?( know)?( (on|about|with|understand))?\b",
        "",
    ),
    ("plain", rf"^(can|could|would|will) {_WHO} explain\b", "explain"),
    ("know", rf"^(do|does) {_WHO} know( (about|of))?\b", ""),
    (
        " to ",
        r"^(i|we) (want|wish|need|would like|would love|am trying|am looking)"
        r" to (know|learn|understand|ask|find out)\b",
        "",
    ),
    ("wonder", r"^(i|we) (wonder|am wondering|was wondering|wondered)( if| whether)?\b", ""),
    ("need", r"^(i|we) (need|want) (help|advice|some help|some advice) (with|on|about|to)\b", "how to"),
    ("me", r"^(tell|show|teach|explain to) (me|us)( about)?\b", ""),
    ("you", r"\b(in your opinion|according to you|do you think|do you believe|would you say)\b", ""),
    ("how come", r"\bhow come\b", "why"),
    (
        "what",
        r"\bfor what reason\b"
        r"|\bwhat (is|was|are|were) the (main |real |actual |exact )?(reasons?|cause) (for|why|that|behind)\b",
        "why",
    ),
    ("", r"\b(what|which) (time|day|date|year)\b", r"when \2"),
    ("number", r"\bwhat (is|are) the number of\b", "how many"),
    ("amount", r"\bwhat (is|are) the amount of\b", "how many"),
    ("cost", r"\bwhat (is|are|was) the cost (of|for|to)\b", "how much cost"),
    ("price", r"\bwhat (is|are|was) the price (of|for)\b", "how much cost"),
    (
        "time",
        r"\bwhat (is|was|would be|will be) the (best |right |ideal |proper |correct )?time\b",
        r"when is the \2time",
    ),
    ("or not", r"\b(if|whether)? ?or not\b", ""),
    (
        "what",
        rf"\bwhat (is|are|would be|were|will be|can be|could be) (a|an|the|some|some of the|your|any)? ?(\w+ )?{_WAY}"
        r" (to|of|for|in which|i can|we can|you can|one can|through which|by which)\b",
        r"how to \3",
    ),
    ("s ", r"\b(what|which) (\w+ )?(steps|measures|ways) (should|can|could|do|must|to)\b", r"how \4 \2"),
    (
        "what",
        rf"\bwhat (should|can|could|must|do|does|shall) {_ONE} do (to|in order to|so that|if i want to)\b",
        "how to",
    ),
    ("done", r"\bwhat (has|have) to be done to\b", "how to"),
    (
        "there",
        r"\bis there (a|an|any|some|any other) (\w+ )?(way|method|chance|possibility)"
        r" (to|of|that|for|i can|we can|you can|one can)\b",
        r"can \2",
    ),
    ("impossible", r"\b(is|was) it impossible (for (me|us|you|someone|one) )?(to|that)\b", "can not"),
    ("possible", r"\b(is|would|will) it (be )?possible (for (me|us|you|someone|one) )?(to|that)\b", "can"),
    ("l", r"\b(am|are|is) (i|we|you|one) (able|allowed) to\b", "can"),
    ("", r"\b(a|the|some|any) (way|ways|steps|instructions|guide) (to|for|on|of)\b", "how to"),
    ("mean", r"\bwhat (do|does|did) (.+) mean\b", r"what is \2"),
    ("of", r"\bwhat (is|are) (the )?(meaning|definition) of\b", "what is"),
    ("e", r"\b(define|explain|describe)\b", "what is"),
    ("like", r"\bwhat (does|do) (it|something) (feel|look) like\b", "how is it"),
    ("of", r"\b(because|on account) of\b", "because"),
    ("due", r"\bdue to\b", "because"),
    ("in order", r"\bin order to\b", "to"),
    ("lot", r"\ba lot of\b|\blots of\b", "many"),
    ("moment", r"\bat (this|the) moment\b", "now"),
    ("right now", r"\bright now\b", "now"),
    ("get", r"\bget rid (of|off|from)\b", "remove"),
    ("as soon", r"\bas soon as\b", "when"),
    ("instead", r"\binstead of\b", "rather than"),
    ("at least", r"\bat least\b", "minimum"),
    ("at most", r"\bat most\b", "maximum"),
    ("more", r"\bany ?more\b", "still not"),
    ("longer", r"\bno longer\b", "still not"),
)  # fmt: skip
REPHRASED: Final = tuple((word, re.compile(pattern), into) for word, pattern, into in _REPHRASED)

# What is asked, by the first of these that a text has.
QUESTION: Final = re.compile(
    r"\b(?P<amount>how (?:many|much))\b"
    r"|\b(?P<degree>how (?:long|old|often|far|fast|tall|big|large|high|deep|wide|heavy|soon|late|early|hot|cold|strong|"
    r"safe|good|bad|accurate|true|hard|difficult|easy|likely|common|important|expensive|cheap))\b"
    r"|\b(?P<why>why)\b|\b(?P<who>who|whom|whose)\b|\b(?P<when>when)\b|\b(?P<where>where)\b|\b(?P<how>how)\b"
    r"|\b(?P<what>what|which)\b"
)
YES_NO: Final = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "am",
        "do",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "should",
        "shall",
        "may",
        "might",
        "must",
        "has",
        "have",
        "had",
    ]
)
