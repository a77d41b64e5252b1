"""Checks what screenshot.sh made: python3 check.py FOLDER report.css"""

import collections
import pathlib
import re
import struct
import sys
import zlib


def read_png(path):
    """Rows of (r, g, b) bytes of an 8-bit PNG without interlacing."""
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"{path}: no PNG")
    at, packed = 8, b""
    while at < len(data):
        (n,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + n]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, lace = struct.unpack(">IIBBBBB", body)
            if depth != 8 or colour not in (2, 6) or lace:
                raise ValueError(f"{path}: a form of PNG that is not read here")
            step = 3 if colour == 2 else 4
        elif kind == b"IDAT":
            packed += body
        at += 12 + n
    raw, rows = zlib.decompress(packed), []
    line = width * step
    before = bytearray(line)
    for y in range(height):
        start = y * (line + 1)
        filt, row = raw[start], bytearray(raw[start + 1 : start + 1 + line])
        if filt == 1:
            for i in range(step, line):
                row[i] = (row[i] + row[i - step]) & 255
        elif filt == 2:
            for i in range(line):
                row[i] = (row[i] + before[i]) & 255
        elif filt == 3:
            for i in range(line):
                left = row[i - step] if i >= step else 0
                row[i] = (row[i] + (left + before[i]) // 2) & 255
        elif filt == 4:
            for i in range(line):
                a = row[i - step] if i >= step else 0
                c = before[i - step] if i >= step else 0
                b = before[i]
                p = a + b - c
                pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
                row[i] = (row[i] + (a if pa <= pb and pa <= pc else b if pb <= pc else c)) & 255
        before = row
        rows.append([bytes(row[i : i + 3]) for i in range(0, line, step)])
    return rows


def share(rows, colour):
    """What part of the rows has very nearly that colour."""
    near = {}
    n = 0
    for row in rows:
        for pixel in row:
            if pixel not in near:
                near[pixel] = all(abs(a - b) <= 2 for a, b in zip(pixel, colour))
            n += near[pixel]
    return n / (len(rows) * len(rows[0]))


def luminance(colour):
    linear = [(c / 255 / 12.92) if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    x, y = sorted((luminance(a), luminance(b)), reverse=True)
    return (x + 0.05) / (y + 0.05)


def palette(css):
    """The colours of the light and of the dark scheme."""
    blocks = re.findall(r":root\{(.*?)\}", css, re.S)
    schemes = [{k: bytes.fromhex(v * 2 if len(v) == 3 else v) for k, v in re.findall(r"--([a-z]+):#([0-9a-f]{6}|[0-9a-f]{3})\b", b)} for b in blocks]
    return {"light": schemes[0], "dark": {**schemes[0], **schemes[1]}}


failures = []


def want(ok, text):
    if not ok:
        failures.append(text)


def check_shot(path, colours, block):
    rows = read_png(path)
    name = path.name
    count = collections.Counter(pixel for row in rows for pixel in row)
    want(len(count) >= 50, f"{name}: only {len(count)} colours: is it blank?")
    paper = count.most_common(1)[0][0]
    want(count[paper] < 0.97 * len(rows) * len(rows[0]), f"{name}: nearly all of it is one colour")
    want(all(abs(a - b) <= 2 for a, b in zip(paper, colours["paper"])), f"{name}: paper is {paper.hex()}, want {colours['paper'].hex()}")
    first = rows[:800] if len(rows[0]) > 500 else rows[:700]
    got = share(first, colours[block])
    want(got >= 0.08, f"{name}: the verdict covers {got:.1%} of the first screen in {colours[block].hex()}")
    # The verdict is read first: it begins in the first fifth of the screen.
    top = next((y for y, row in enumerate(rows) if row[len(row) // 2] == rows_colour(rows, y, colours[block])), len(rows))
    want(top < 200, f"{name}: the verdict begins at {top}")
    # Nothing reaches the right edge, so nothing runs over it.
    edge = {row[x] for row in rows for x in range(len(row) - 6, len(row))}
    want(edge == {paper}, f"{name}: something runs over the right edge")
    others = [c for c in ("pass", "held", "not") if c != block]
    for c in others:
        want(share(first, colours[c]) < 0.01, f"{name}: the first screen has the colour of another verdict")
    return paper


def rows_colour(rows, y, colour):
    """The middle pixel of a row if it has nearly that colour."""
    pixel = rows[y][len(rows[y]) // 2]
    return pixel if all(abs(a - b) <= 2 for a, b in zip(pixel, colour)) else None


def main():
    folder, css = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
    schemes = palette(css)
    blocks = {"pass": "pass", "held": "held", "not": "not", "hostile": "held", "large": "pass"}
    # The folder may be one that a person keeps other pictures in.
    shots = sorted(p for p in folder.glob("*-*.png") if p.stem.split("-")[0] in blocks)
    want(len(shots) == 13, f"{len(shots)} pictures, want 13")
    for path in shots:
        page, look = path.stem.split("-")
        scheme = "dark" if look == "dark" else "light"
        paper = check_shot(path, schemes[scheme], blocks[page])
        want(luminance(paper) > 0.9 if scheme == "light" else luminance(paper) < 0.03, f"{path.name}: paper {paper.hex()} is not {scheme}")
    # Contrast as WCAG 2.2 asks of text: 4.5 to 1.
    for scheme, colours in schemes.items():
        for name in ("ink", "quiet", "critical", "high", "unknown", "medium", "low", "other", "flag"):
            got = contrast(colours[name], colours["paper"])
            want(got >= 4.5, f"{scheme}: {name} on paper has contrast {got:.1f}")
        for name in ("pass", "held", "not"):
            got = contrast(colours["on"], colours[name])
            want(got >= 4.5, f"{scheme}: text on {name} has contrast {got:.1f}")
    pages = {}
    for path in sorted(folder.glob("*.pdf")):
        data = path.read_bytes()
        want(data.startswith(b"%PDF-"), f"{path.name}: no PDF")
        pages[path.stem] = len(re.findall(rb"/Type\s*/Page\b(?!s)", data))
    want(3 <= pages.get("held", 0) <= 12, f"held.pdf has {pages.get('held')} pages")
    want(3 <= pages.get("large", 0) <= 80, f"large.pdf has {pages.get('large')} pages")
    dom = (folder / "hostile.dom").read_text(errors="replace")
    want("What to do" in dom, "hostile.dom: the page is not whole")
    for element in ("<script", "<img", "<a href=\"http", " onerror="):
        want(element not in re.sub(r"&lt;.*?&gt;", "", dom), f"hostile.dom has {element}")
    for line in failures:
        print("screenshot:", line, file=sys.stderr)
    if failures:
        sys.exit(1)
    print(f"screenshot: {len(shots)} pictures and {sum(pages.values())} printed pages are as they should be")


main()
