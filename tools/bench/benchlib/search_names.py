"""Names as a life collects them, the same for the same seed: photos by number, documents of words, code, music.

Words are made of syllables and used as words are, a few of them most of the time. Beside the names come the queries
that are asked: pieces of such names.
"""

import random
from collections.abc import Iterator

_SYLLABLES = (
    "ba co di fu ga ho in ja ki lo mu na or pe qui ra so tion ul ve wi xa yo zi ment er al st th ph gra pho to ing re "
    "port bea ch lan der sum mer win ter mar ket blu gre en"
).split()
_ENDINGS = [".jpg"] * 40 + [".png"] * 10 + [".pdf", ".txt", ".py"] * 8 + [".mp3"] * 6 + [".docx"] * 3 + [""] * 5
RARE_WORD = "zzyzx"
FILES_PER_DIRECTORY = 50
#: One file in so many has the rare word.
_RARE_EVERY = 50_000
_WORDS_SEED = 7


def names(count: int, seed: int) -> Iterator[str]:
    """So many names of files, no two alike."""
    luck = random.Random(_WORDS_SEED)  # a language is the same for everybody
    words = sorted({"".join(luck.choices(_SYLLABLES, k=luck.choice([2, 3, 3, 4]))) for _ in range(30_000)})
    luck.shuffle(words)
    luck = random.Random(seed)
    weights = [1 / (rank + 10) for rank in range(len(words))]
    drawn = iter(luck.choices(words, weights, k=2 * count))
    for number in range(count):
        first, second = next(drawn), next(drawn)
        shape = luck.random()
        if number % _RARE_EVERY == _RARE_EVERY // 2:
            name = f"{RARE_WORD} {first}"
        elif shape < 0.35:
            name = f"IMG_{luck.randrange(10_000):04d} {first}"
        elif shape < 0.7:
            name = f"{first}_{second}"
        elif shape < 0.95:
            name = f"{first.capitalize()} {second} {luck.randrange(1990, 2025)}"
        else:
            name = f"{first}é {second}"
        yield f"{name}-{number:x}{luck.choice(_ENDINGS)}"


def directory_names(count: int) -> list[str]:
    return [f"folder {number:05d}" for number in range(count)]


def queries(count: int, seed: int) -> dict[str, list[str]]:
    """By row of the table the texts that are asked for; the last row's are terms that only we know."""
    luck = random.Random(seed)
    years = [f"tag:holiday kind:image modified:{year}" for year in range(2010, 2020)]
    some = [name.rpartition("-")[0].lower() for name in names(max(400, 4 * count), seed)]
    words = [word for name in some for word in name.replace("_", " ").split() if word.isascii() and len(word) >= 5]

    def piece(word: str, size: int) -> str:
        at = luck.randrange(len(word) - size + 1)
        return word[at : at + size]

    chosen = [words[luck.randrange(len(words))] for _ in range(count)]
    return {
        "substring of 4": [piece(word, 4) for word in chosen],
        "prefix of 5": [word[:5] for word in chosen],
        "word": chosen,
        "rare word": [RARE_WORD] * count,
        "two letters": [piece(word, 2) for word in chosen],
        "tag, kind and date": years * max(1, count // 10),
    }
