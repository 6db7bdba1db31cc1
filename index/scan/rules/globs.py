"""Patterns of names and paths as regular expressions over bytes.

The language is that of git's wildmatch with WM_PATHNAME, and `{a,b}` on top for those who ask for it: `*` and `?` stay
within one component of a path, `**` crosses, `[...]` is a set with ranges, negation and POSIX classes, a backslash
takes the next byte as it is. A pattern that is no good matches nothing, as in git; nothing here raises for bad input.

What git does, with all its corners, is the measure (wildmatch.c and dir.c of git 2.39): a set is worked out byte by
byte with the rules of its loop, because the corners lie there. Stars are translated so that a match never goes back
over more than one of them (atomic groups), or a pattern with many stars and a long name would take for ever.
"""

import re
from functools import lru_cache

_SPECIAL = re.compile(rb"[*?\[\\]")
_SLASH = 0x2F

#: Alternatives of one pattern, at most; what has more is taken literally from there on.
_BRACES_MAX = 1024

_CLASSES: dict[bytes, bytes] = {
    b"alnum": b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    b"alpha": b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    b"blank": b" \t",
    b"cntrl": bytes([*range(32), 127]),
    b"digit": b"0123456789",
    b"graph": bytes(range(33, 127)),
    b"lower": b"abcdefghijklmnopqrstuvwxyz",
    b"print": bytes(range(32, 127)),
    b"punct": b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    b"space": b" \t\n\v\f\r",
    b"upper": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"xdigit": b"0123456789ABCDEFabcdef",
}


def literal_length(pattern: bytes) -> int:
    """How many bytes of a pattern come before its first special one."""
    found = _SPECIAL.search(pattern)
    return len(pattern) if found is None else found.start()


@lru_cache(maxsize=4096)
def translate(pattern: bytes, *, fold: bool = False) -> "re.Pattern[bytes] | None":
    """The expression whose fullmatch says whether a path matches; None for a pattern that nothing can match.

    `fold`: letters of ASCII in either case.
    """
    source = source_of(pattern, fold=fold)
    return None if source is None else re.compile(source, re.DOTALL | (re.IGNORECASE if fold else 0))


#: What a pattern is made of: one byte of the text, a star within a component, one that crosses.
_BYTE, _STAR, _CROSS = range(3)
_Token = tuple[int, bytes]


@lru_cache(maxsize=4096)
def source_of(pattern: bytes, *, fold: bool = False) -> bytes | None:
    """A pattern as the text of an expression; None for a pattern that nothing can match.

    Of what follows a star the first place that fits is as good as any later one, when another star of the same or a
    greater reach comes after it: that one takes up the difference. So all but the last are atomic.
    """
    tokens = _tokens(pattern, fold)
    if tokens is None:
        return None
    groups: list[list[_Token]] = [[]]
    for token in tokens:
        if token[0] == _CROSS:
            groups.append([])
        groups[-1].append(token)
    texts = [_group(group) for group in groups]
    return b"".join([b"(?>%s)" % text for text in texts[:-1]] + texts[-1:])


def _group(tokens: list[_Token]) -> bytes:
    """The expression of what stands between two crossing stars, the first of them included."""
    out: list[bytes] = []
    is_open = False
    for position, (kind, text) in enumerate(tokens):
        if kind != _STAR:
            out.append(text)
            continue
        if is_open:
            out.append(b")")
        rest = [other for other in tokens[position + 1 :] if other[0] == _STAR or other[1] == b"/"]
        is_open = bool(rest) and rest[0][0] == _STAR
        out.append(b"(?>[^/]*?" if is_open else b"[^/]*?")
    return b"".join(out) + (b")" if is_open else b"")


def _tokens(pattern: bytes, fold: bool) -> list[_Token] | None:
    out: list[_Token] = []
    position, end = 0, len(pattern)
    while position < end:
        byte = pattern[position]
        if byte == 0x2A:  # *
            after = position
            while after < end and pattern[after] == 0x2A:
                after += 1
            rest = pattern[after : after + 2]
            is_whole = (position == 0 or pattern[position - 1] == _SLASH) and (
                rest[:1] in (b"", b"/") or rest == b"\\/"
            )
            if after - position < 2 or not is_whole:
                out.append((_STAR, b""))
            elif rest[:1] == b"/":  # it may stand for nothing, and then its slash does too
                out.append((_CROSS, b"(?:.*?/)??"))
                after += 1
            else:
                out.append((_CROSS, b".*?"))
            position = after
        elif byte == 0x3F:  # ?
            out.append((_BYTE, b"[^/]"))
            position += 1
        elif byte == 0x5B:  # [
            found = _set(pattern, position + 1, fold)
            if found is None:
                return None
            out.append((_BYTE, found[0]))
            position = found[1]
        else:
            if byte == 0x5C:  # a backslash
                position += 1
                if position == end or (fold and 0x41 <= pattern[position] <= 0x5A):
                    return None  # git takes the capital as it is, and the path's letters as small ones
            out.append((_BYTE, b"/" if pattern[position] == _SLASH else re.escape(pattern[position : position + 1])))
            position += 1
    return out


def _set(pattern: bytes, position: int, fold: bool) -> tuple[bytes, int] | None:
    """The bytes that a set takes, as a set of an expression, and where the pattern goes on; None: nothing matches."""

    def at(index: int) -> int:
        return pattern[index] if index < len(pattern) else 0

    byte = at(position)
    is_negated = byte in b"!^" and byte != 0
    if is_negated:
        position += 1
        byte = at(position)
    before = 0
    taken: set[int] = set()
    while True:  # as in git: the first byte counts even if it is the bracket that ends a set
        if not byte:
            return None
        if byte == 0x5C:
            position += 1
            byte = at(position)
            if not byte:
                return None
            taken.add(byte)
        elif byte == 0x2D and before and at(position + 1) not in (0, 0x5D):
            position += 1
            byte = at(position)
            if byte == 0x5C:
                position += 1
                byte = at(position)
                if not byte:
                    return None
            taken.update(range(before, byte + 1))
            if fold:
                taken.update(one + 32 for one in range(max(before, 0x41), min(byte, 0x5A) + 1))
            byte = 0  # so that no other range begins here
        elif byte == 0x5B and at(position + 1) == 0x3A:
            start = position + 2
            close = pattern.find(b"]", start)
            if close < 0:
                return None
            if close - start - 1 < 0 or pattern[close - 1] != 0x3A:
                taken.add(byte)  # no class: the bracket is one of the bytes
            else:
                named = _CLASSES.get(pattern[start : close - 1])
                if named is None:
                    return None
                taken.update(named)
                if fold and pattern[start : close - 1] == b"upper":
                    taken.update(_CLASSES[b"lower"])
                position = close
                byte = 0
        else:
            taken.add(byte)
        before = byte
        position += 1
        byte = at(position)
        if byte == 0x5D:
            break
    lowered = {one: one + 32 if fold and 0x41 <= one <= 0x5A else one for one in range(1, 256) if one != _SLASH}
    wanted = bytes(one for one, as_seen in lowered.items() if (as_seen in taken) != is_negated)
    if not wanted:
        return None
    return b"[%s]" % b"".join(b"\\x%02x" % one for one in wanted), position + 1


def alternatives(pattern: bytes) -> list[bytes]:
    """A pattern with `{a,b}` as the patterns it stands for; braces may stand in braces. One that is not closed, and
    what would be more than a thousand, is taken as it is."""
    done: list[bytes] = []
    todo = [pattern]
    while todo:
        one = todo.pop()
        found = _brace(one)
        if found is None or len(done) + len(todo) > _BRACES_MAX:
            done.append(one)
            continue
        start, cuts = found
        ends = [*cuts]
        tail = one[ends[-1] + 1 :]
        begins = [start, *ends[:-1]]
        todo.extend(one[:start] + one[a + 1 : b] + tail for a, b in reversed(list(zip(begins, ends, strict=True))))
    return done


def _brace(pattern: bytes) -> tuple[int, list[int]] | None:
    """The first brace that is closed: where it begins, and where each of its alternatives ends."""
    depth, start = 0, -1
    cuts: list[int] = []
    position = 0
    while position < len(pattern):
        byte = pattern[position]
        if byte == 0x5C:
            position += 1
        elif byte == 0x5B and (close := pattern.find(b"]", position + 2)) > 0:
            position = close  # a set
        elif byte == 0x7B:
            if depth == 0:
                start, cuts = position, []
            depth += 1
        elif byte == 0x2C and depth == 1:
            cuts.append(position)
        elif byte == 0x7D and depth:
            depth -= 1
            if depth == 0:
                return start, [*cuts, position]
        position += 1
    return None
