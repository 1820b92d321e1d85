"""HTML files that ask the network for nothing: their style, and the parts that all have. Every text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head><body>
"""
END = "</body></html>\n"


def write_page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Write a page of parts.

    style: CSS of its own besides what all pages have.
    """
    common = (files("bigvit_edge") / "pages.css").read_text(encoding="utf-8")
    return "".join((HEAD.format(title=escape(title), style=common + style), *parts, END))


def write_section(title: str, body: str) -> str:
    """Write a section under its title."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def write_list(items: Iterable[str]) -> str:
    """Write a list of lines."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def write_table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: int, after: int = 0) -> str:
    """Write a table that scrolls by itself where it is too wide.

    The last `numbers` columns before the last `after` are figures, at the right.
    """
    figures = range(len(titles) - numbers - after, len(titles) - after)

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=number' if place in figures else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", place, text) for place, text in enumerate(titles))
    body = "".join("<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
