"""What stands in the blocks of a page of documentation, and what a browser makes of a page."""

import re
from html.parser import HTMLParser
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language, without their indentation."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^ {{{len(block) - len(block.lstrip(' '))}}}", "", block, flags=re.MULTILINE) for block in found]


class BrowsedPage(HTMLParser):
    """A page in which every element that begins also ends.

    Attributes:
        names: Names of its elements.
        addresses: What they lead to or fetch.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.addresses, self._open = list[str](), list[str](), list[str]()
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "data", "xlink:href"}]
        self._open += [] if tag in {"meta", "img", "br", "link"} else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
