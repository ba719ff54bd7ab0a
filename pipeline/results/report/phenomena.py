"""Surface phenomena: marks that a pattern finds in a sentence.

CoLA's files name none. These are no parses: each is a regular expression over the sentence as it stands, shown in the
report beside its scores, and finds what looks like its name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BE = r"(?:am|is|are|was|were|be|been|being|get|gets|got|'s|'re)"
PARTICIPLES = (
    r"(?:\w{2,}ed|born|bought|broken|brought|built|caught|chosen|done|drawn|driven|eaten|fallen|found|forgotten|given|"
    r"gone|grown|heard|held|hidden|hit|hurt|kept|known|laid|left|lost|made|meant|met|paid|put|read|said|seen|sent|shot|"
    r"shown|sold|spoken|stolen|struck|sung|taken|taught|told|thought|thrown|understood|won|worn|written)"
)


@dataclass(frozen=True)
class Phenomenon:
    """A mark that sentences bear or do not bear.

    Args:
        name: for people.
        pattern: what is searched in the sentence.
        case: whether upper and lower case differ.
    """

    name: str
    pattern: str
    case: bool = False

    def finds(self, text: str) -> bool:
        """Whether a sentence bears it."""
        return re.search(self.pattern, text, 0 if self.case else re.IGNORECASE) is not None


PHENOMENA = (
    Phenomenon("question", r"\?\s*$"),
    Phenomenon("wh-word first", r"^(?:who|whom|whose|what|which|when|where|why|how)\b"),
    Phenomenon("negation", r"\b(?:not|never|no|nobody|nothing|none|nowhere|neither|nor|cannot)\b|n't\b"),
    Phenomenon("passive-looking", rf"(?:\b|(?<=\w)(?='))({BE})\s+(?:\w+ly\s+|not\s+)?{PARTICIPLES}\b"),
    Phenomenon("relative or complement word", r"(?<=\w)[\s,]+(?:that|which|who|whom|whose|whether)\b"),
    Phenomenon(
        "adverbial-clause word",
        r"\b(?:because|although|though|while|since|unless|until|if|when|whenever|before|after)\b",
    ),
    Phenomenon("coordination", r"\b(?:and|or|but|nor)\b"),
    Phenomenon(
        "reflexive or reciprocal",
        r"\b(?:my|your|him|her|it|one)self\b|\b(?:our|your|them)selves\b|\beach other\b|\bone another\b",
    ),
    Phenomenon(
        "expletive-looking there or it",
        r"\bthere(?:'s|\s+(?:is|are|was|were|will be|may be|seems?|seemed|appears?|appeared|exists?|arose|remains?))\b"
        r"|\bit(?:'s|\s+(?:is|was|seems?|seemed|appears?|appeared))\b.*\b(?:that|to|for)\b",
    ),
    Phenomenon("comparative", r"\b(?:more|less|fewer|\w{2,}er)\b.*\bthan\b|\bas\s+\w+\s+as\b"),
    Phenomenon("infinitive-looking", r"\bto\s+(?!the\b|an?\b|my\b|your\b|his\b|her\b|its\b|our\b|their\b)[a-z]+", True),
    Phenomenon("modal verb", r"\b(?:can|could|may|might|must|shall|should|will|would)\b|\b(?:ca|wo)n't\b"),
    Phenomenon("quantifier", r"\b(?:every|each|all|some|any|most|many|few|several|both|everyone|everything|anyone)\b"),
    Phenomenon("capitalised name inside", r"(?<=[a-z,;] )[A-Z][a-z]+", True),
    Phenomenon("comma", r","),
)
LENGTHS = ((1, 5), (6, 8), (9, 12), (13, 20), (21, None))
"""Bands of how many words stand between blanks; the last one is open."""


def marked(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Which sentences bear each mark, and in which band of length each stands.

    Args:
        texts: `[n]` sentences.

    Returns:
        `[n]` bool by name, in the order of `PHENOMENA`, then the bands.
    """
    found = {each.name: np.fromiter((each.finds(text) for text in texts), bool, len(texts)) for each in PHENOMENA}
    words = np.asarray([len(text.split()) for text in texts])
    for low, high in LENGTHS:
        found[band_name(low, high)] = (words >= low) & ((words <= high) if high is not None else True)
    return found


def band_name(low: int, high: int | None) -> str:
    """What a band of lengths is called."""
    return f"{low} to {high} words" if high is not None else f"{low} words or more"


def pattern_of(name: str) -> str:
    """The pattern that finds a mark; for a band of length, what is counted."""
    patterns = {each.name: each.pattern for each in PHENOMENA}
    return patterns.get(name, "words between blanks")
