"""Whether an answer without coordinates says that nothing is there: "none", "No pneumonia.", 未见肺炎, an empty list.

A text is cut at punctuation and at words that turn it ("but", "except", 但); "no effusion, mass or nodule" stays one
list. It says that nothing is there where at least one part denies and each other part only says where one looked, or
that something is normal. So whatever else is claimed ("No effusion, a nodule on the left"), doubted ("probably no
mass") or left open ("I cannot tell") makes it no denial. What is denied is not compared with what was asked.

| at once  | no X, none, nothing, without X, free of X, negative for X; 未见X, 未发现X, 没有X, 无X, 不存在X |
| behind   | X is not seen (visible, present, found, ...), X is absent, X: none; X未见, X: 无, X阴性         |
| speaker  | I do not see X, the image does not show X, it cannot be seen; 看不到X, 不可见                   |
| JSON     | an empty list, fenced or bare, alone or under a key                                         |

Cues that only look like a denial ("no change in") and cues of doubt are those of the finding labeller (findings.yaml).
A text of more than 1000 characters says more than that.
"""

import re

from umit_jax.eval.metrics.findings import cues
from umit_jax.eval.normalise import drop_special_tokens, fold, is_chinese

_LONGEST = 1000
_EMPTY_LIST = re.compile(r"(?:```(?:json)?)?\s*(?:\{\s*\"\w+\"\s*:\s*)?\[\s*\]\s*\}?\s*(?:```)?\s*\.?")
_ASKED = re.compile(r"[^.?!。\n]*\?")  # a question said again
_DECORATION = re.compile(r"[*`\"“”]")
_NO_CLAIM = re.compile(  # of knowledge, not of a finding: never a denial
    r"\b(?:not (?:sure|certain|clear|possible|able)|know|unable|unsure|no (?:idea|doubt|answer|question|comment|way"
    r"|information|image|coordinates|problem)|difficult|impossible)\b|无法|无从|没有?(?:办法|把握|变化)|不(?:确定|清楚|知道|能确定)"
)

_ENDS = {
    "en": re.compile(
        r"[,;!()\n]|\.(?!\d)|\s[-–—]+\s(?!(?:no|none|nothing|absent|negative|nil|not)\b)"
        r"|\b(?:but|however|although|though|except|otherwise|aside from|apart from|other than"
        r"|besides|whereas|while|because|since|only|which|with)\b|\band\b(?=\s+(?:an?|the|there|no|small|large|new|mild)\b)"
        r"|\band\b(?=.*\b(?:in|on|at)\s+(?:the\s+)?(?:left|right|upper|lower|middle|other)\b)"
    ),
    "zh": re.compile(r"[,;!()\n。]|\.(?!\d)|但|不过|而|仅|只"),
}
_LIST_ENDS = re.compile(r"\s*(?:or|nor)\b")

# Words that may stand before "no" and claim nothing themselves.
_SCENE = (
    r"(?:images?|pictures?|scans?|slices?|x-?rays?|radiographs?|films?|photos?|volumes?|stud(?:y|ies)|ct|mri?|patient"
    r"|lungs?|lung fields?|chest|heart|abdomen|brain|liver|kidneys?)"
)
_PLACE = (
    r"(?:(?:in|on|from|within|based on|throughout)\s+)?"
    rf"(?:(?:the|this|both|given|left|right|chest|ct|mri?)\s+)*{_SCENE}"
)
_LEAD = (
    rf"(?:(?:(?:the )?(?:answer|findings?|impression|result|conclusion):\s*"
    rf"|(?:so|thus|therefore|here|also|and|answer is|the answer is)\s+)?"
    rf"(?:there(?:'s| is| are| was| were)\s+|i\s+(?:can\s+)?(?:see|find|detect)\s+|it\s+(?:is|shows)\s+"
    rf"|{_PLACE}\s+(?:there\s+)?(?:(?:is|are|shows?|has|have|contains?|demonstrates?|reveals?|with)\s+)?)?)"
)
_SEEN = (
    r"(?:seen|visible|visuali[sz]ed|present|found|detected|identified|shown|demonstrated|evident|appreciated|observed"
    r"|there)"
)
_NOT = r"(?:(?:is|are|was|were|has been|have been)\s+(?:not|never)|(?:is|are|was|were)n't|not)\s+(?:clearly\s+)?"
_NOT_BEFORE = r"(?!\s+(?:before|previously|earlier|(?:in|on)\s+(?:the\s+)?prior))"  # "not seen before" is seen now
_DOES_NOT = r"(?:(?:do|does|did|can|could)\s+not|cannot|(?:do|does|did|ca|could)n't)"
_DENIES = {
    "en": re.compile(
        rf"{_LEAD}(?:no|none|nothing|nope|nil|negative|absent|without|free of|clear of|negative for|(?:the )?absence of"
        rf"|no longer|neither)\b.*"
        rf"|there\s+(?:is|are|was|were)(?:n't|\s+not)\s+(?:an?|any)\b.*"
        rf"|[^:]{{0,80}}?\b{_NOT}{_SEEN}\b{_NOT_BEFORE}.*"
        rf"|[^:]{{0,80}}?\b(?:is|are|was|were)\s+(?:absent|no longer {_SEEN})\b.*"
        rf"|[^:]{{0,60}}(?::|\s[-–—]+)\s*(?:none|no|absent|negative|nil|nothing|not|no evidence)(?:\s+{_SEEN})?"
        rf"|(?:i|we|one|{_PLACE})\s+{_DOES_NOT}\s+(?:\w+ly\s+)?(?:see|find|detect|show|contain|have|reveal|demonstrate)\b.*"
        rf"|[^:]{{0,60}}?\b{_DOES_NOT}\s+(?:be (?:seen|found|detected)|exist|appear)\b.*"
    ),
    "zh": re.compile(
        r"(?:(?:影像)?(?:所见|结论|诊断|结果):?|(?:该|此|本|图|像|影|片|中|上|内|里|胸|ct|mri?|x线|x光|扫描|双|两|左|右|侧|肺|野|腹|腔|部|头|脑|肝|脏|检查"
        r"|我|可|均|都|也|示|显示|答案|是|为|:|\s)*)"
        r"(?:未(?:能)?(?:见|发现|检测到|检测出|检出|显示|找到|看到|查见|及)|没(?:有|见|看到|发现|检测到|找到)|看不到|不可见|不存在"
        r"|无(?![论疑关效需能可须误痛]|回声|症状|(?:强|钙)化.)|否$).*"
        r"|[^:]{1,20}:\s*(?:无|否|未见|没有|不存在|阴性|未见异常|无异常)"
        r"|[^:]{0,20}?(?:(?<!能)未见|未(?:被)?(?:发现|检出|检测到|显示|看到)|不存在|不可见|看不到|阴性|缺如|没有)"
    ),
}
_NORMAL = re.compile(
    r"(?:[\w -]{0,60}?\b(?:is|are|looks?|appears?|seems?)\s+)?(?:[a-z-]+\s+){0,3}(?:clear|normal|unremarkable|healthy)"
    r"|.{0,12}?(?<![不非])(?:正常|清晰|无异常)"
)
_WHERE = re.compile(rf"{_PLACE}|{_SCENE}|(?:在)?(?:该|此|本)?(?:图像|影像|图片|胸片|图)?[中上内里]?")
_TURNED = re.compile(
    r"\b(?:not|isn't|never|no)\s+(?:an?\s+|the\s+)?(?:absent|free|negative|without|nothing|none|normal)\b|不是|并非|有无|有没有|除.{1,15}外"
)


def says_nothing(text: str) -> bool:
    """Whether the text says that nothing is there. It must hold no coordinates; empty text says nothing of the kind."""
    if len(text) > _LONGEST:
        return False
    said = "\n".join(map(fold, drop_special_tokens(text, " ").splitlines())).replace("’", "'")
    if len(said) > _LONGEST:  # folding may lengthen it
        return False
    if _EMPTY_LIST.fullmatch(said):
        return True
    said = _ASKED.sub(" ", _DECORATION.sub(" ", said))
    language = "zh" if any(map(is_chinese, said)) else "en"
    if _NO_CLAIM.search(said) or _TURNED.search(said):
        return False
    denied = listing = False
    parts = [part.strip(" :-") for part in _ENDS[language].split(said)]
    for i, part in enumerate(parts):
        if not part:
            continue
        if _denies(part, language):
            denied = listing = True
        elif listing and any(_LIST_ENDS.match(later) for later in parts[i:]):
            continue  # "no consolidation, effusion, or pneumothorax"
        elif not _NORMAL.fullmatch(part) and (denied or not _WHERE.fullmatch(part)):
            return False
        else:
            listing = False
    return denied


def _denies(part: str, language: str) -> bool:
    table = cues(language)
    part = table.pseudo.sub("", part)
    doubt = table.uncertain_before.search(part)
    found = _DENIES[language].fullmatch(part)
    # of doubt and denial the first decides, as in the finding labeller: "no evidence to suggest" denies
    first = re.search(r"\bno|n't\b|absen|without|free of|negative|neither|[未无没不阴]", part)
    return bool(found) and not (doubt and not (first and first.start() < doubt.start()))
