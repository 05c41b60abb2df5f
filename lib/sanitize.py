"""Text from files, processes and drivers made fit to be shown: the one place where it is cleaned.

Anyone may write an escape sequence into a file or call a process what they like; on a terminal it would move the
cursor, change colours or hide text, and in Markdown it would become a link, an image or HTML.
"""

import re

MARKDOWN = re.compile(r"[\\`*\[\]<|]")


def printable_line(text: str) -> str:
    """One line: white space becomes single spaces, and every character that prints nothing a question mark."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def printable_text(text: str) -> str:
    """The same, with line breaks and tabs kept: for text that is shown as it is, such as what a model writes."""
    return "".join(c if c.isprintable() or c in "\n\t" else "" if c == "\r" else "?" for c in text)


def escape_markdown(text: str) -> str:
    """`text` with every character escaped that would begin a link, an image, code, emphasis, HTML or a table's cell."""
    return MARKDOWN.sub(r"\\\g<0>", text)
