"""How the stand-in model answers: it quotes the sentences of the given passages that fit the question best.

It says what it is in every answer. The passages' format is the one that the API writes into the system message.
"""

from __future__ import annotations

import html
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass

from assistant_demo.text import is_german, terms

BLOCK = re.compile(r"<passages>\n(.*?)</passages>", re.DOTALL)
PASSAGE = re.compile(r'<passage n="(\d+)" document="([^"]*)"(?: page="(\d*)")?>\n(.*?)\n?</passage>', re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ0-9\"(])")
BULLET = re.compile(r"^\s*[-*+•|]")
LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+|^\s*\|")
HEADING = re.compile(r"^\s*#{1,6}\s+")

SENTENCES_MAX = 3
ENOUGH = 0.4  # share of the question's weight that the best sentence must hold for an answer
CLOSE = 0.75  # share of the best score at which a further sentence is quoted as well
INSTRUCTIONS_SHOWN = 240
TITLE_MAX = 60  # characters


@dataclass(frozen=True, slots=True)
class Passage:
    """One numbered piece of a document, as the prompt holds it."""

    number: int
    document: str
    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One quotable sentence, with the words of the heading above it as context."""

    passage: int
    order: int
    text: str
    terms: frozenset[str]
    context: frozenset[str]


def answer(system: str, question: str) -> str:
    """Return the stand-in's answer to a question, from the passages in the system message if there are any."""
    german = is_german(question)
    block = BLOCK.search(system)
    if block is None:
        return _introduction(system, question, german=german)
    chosen = choose(question, passages(block.group(1)))
    if not chosen:
        return (
            "Offline-Ersatzmodell: Keine der gefundenen Textstellen beantwortet diese Frage."
            if german
            else "Offline stand-in model: none of the passages that were found answers this question."
        )
    opening = (
        "Offline-Ersatzmodell (es zitiert nur, es denkt nicht):"
        if german
        else "Offline stand-in model (it quotes, it does not think):"
    )
    return " ".join([opening, *(f"{sentence.text} [{sentence.passage}]" for sentence in chosen)])


def passages(block: str) -> list[Passage]:
    """Return the passages of a prompt's block."""
    return [
        Passage(int(number), html.unescape(document), html.unescape(text))
        for number, document, _page, text in PASSAGE.findall(block)
    ]


def choose(question: str, given: list[Passage]) -> list[Sentence]:
    """Return the sentences that fit the question, in reading order; none if no sentence fits well enough.

    A sentence scores the rarity (inverse sentence frequency) of each question term it holds; a term that only its
    heading or its document's name holds counts half.
    """
    sentences = [sentence for passage in given for sentence in _sentences(passage)]
    wanted = set(terms(question))
    if not wanted or not sentences:
        return []
    frequency = Counter(term for sentence in sentences for term in sentence.terms)
    rarity = {term: math.log(1 + len(sentences) / (1 + frequency[term])) for term in wanted}
    total = sum(rarity.values())

    def score(sentence: Sentence) -> float:
        own = sum(rarity[term] for term in wanted if _holds(sentence.terms, term))
        context = sum(rarity[term] for term in wanted - sentence.terms if _holds(sentence.context, term))
        return (own + context / 2) / total

    ranked = sorted(((score(sentence), sentence) for sentence in sentences), key=lambda pair: -pair[0])
    best = ranked[0][0]
    if best < ENOUGH:
        return []
    chosen: dict[str, Sentence] = {}
    for value, sentence in ranked:
        if value < best * CLOSE or len(chosen) == SENTENCES_MAX:
            break
        chosen.setdefault(sentence.text, sentence)
    return sorted(chosen.values(), key=lambda sentence: (sentence.passage, sentence.order))


def _holds(have: frozenset[str], term: str) -> bool:
    """Whether a term is there, by itself or (from five letters on) at the start or end of a compound."""
    if term in have:
        return True
    return len(term) >= 5 and any(other.startswith(term) or other.endswith(term) for other in have)


def _sentences(passage: Passage) -> list[Sentence]:
    found: list[Sentence] = []
    name = frozenset(terms(passage.document.rsplit(".", 1)[0].replace("_", " ")))
    heading: frozenset[str] = frozenset()
    for block in _blocks(passage.text):
        if HEADING.match(block):
            heading = frozenset(terms(block))
            continue
        for text in SENTENCE_END.split(block):
            plain = LIST_ITEM.sub("", text).strip(" |\t")
            if len(plain) > 1:
                found.append(Sentence(passage.number, len(found), plain, frozenset(terms(plain)), heading | name))
    return found


def _blocks(text: str) -> list[str]:
    """Return paragraphs, list items and headings, each on one line: PDF text breaks lines within sentences."""
    blocks: list[str] = []
    open_block = False
    lines = text.splitlines()
    if _has_path(lines):
        lines[0] = f"# {lines[0].strip(' #')}"
    for line, following in itertools.pairwise([*lines, ""]):
        if not line.strip():
            open_block = False
        elif (fresh := not open_block or blocks[-1][-1] in ".!?") and _is_title(line, following):
            blocks.append(f"# {line.strip(' #')}")
            open_block = False
        elif not open_block or (fresh and LIST_ITEM.match(line)) or BULLET.match(line):
            blocks.append(line.strip())
            open_block = True
        else:
            blocks[-1] += f" {line.strip()}"
    return blocks


def _has_path(lines: list[str]) -> bool:
    """Whether a passage begins with the headings that it stands under, and has a text below them."""
    if len(lines) < 3 or lines[1].strip() or not lines[0].strip():
        return False
    return lines[0].strip()[-1] not in ".,;:!?" and BULLET.match(lines[0]) is None and any(map(str.strip, lines[2:]))


def _is_title(line: str, following: str) -> bool:
    """Whether a line is a heading: marked, or as in PDF text short and unfinished, and the next line starts anew."""
    if HEADING.match(line) or BULLET.match(line):
        return not BULLET.match(line)
    return len(line) <= TITLE_MAX and line.strip()[-1] not in ".,;:!?" and following.strip()[:1].isupper()


def _introduction(system: str, question: str, *, german: bool) -> str:
    shown = " ".join(system.split())[:INSTRUCTIONS_SHOWN]
    if german:
        told = f"Meine Anweisungen beginnen so: «{shown}»." if shown else "Ich habe keine Anweisungen."
        return (
            f"Offline-Ersatzmodell: Ich bin kein Sprachmodell und habe zu dieser Frage keine Textstellen erhalten. "
            f"{told} Gefragt wurde: «{question.strip()}». Mit OPENAI_API_KEY oder DEMO_MODEL_URL antwortet ein echtes "
            f"Modell."
        )
    told = f"My instructions begin: «{shown}»." if shown else "I have no instructions."
    return (
        f"Offline stand-in model: I am no language model, and this question came without passages. {told} "
        f"You asked: «{question.strip()}». With OPENAI_API_KEY or DEMO_MODEL_URL set, a real model answers."
    )
