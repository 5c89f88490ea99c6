"""What stands in the blocks of a page of documentation."""

import re
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language, without their indentation."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^ {{{len(block) - len(block.lstrip(' '))}}}", "", block, flags=re.MULTILINE) for block in found]
