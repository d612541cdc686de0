"""HTML in which everything is escaped unless it was made here: what a peer says may be anything."""

from html import escape

VOID = frozenset({"link", "meta", "rect", "path", "line", "br", "use"})


class Html(str):
    """Markup. A plain string is text, and becomes markup through `text` only."""

    __slots__ = ()


def text(value: object) -> Html:
    """Text: escaped, and without characters that drive a terminal or turn the writing direction."""
    words = str(value)
    if not words.isprintable():
        words = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in words)
    return Html(escape(words))


def join(*children: object) -> Html:
    """One after the other; None is nothing."""
    return Html(
        "".join(child if isinstance(child, Html) else text(child) for child in children if child is not None)
    )


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. `class_` is class, `aria_label` aria-label; None leaves an attribute out, True is bare."""
    opened = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelled = key.rstrip("_").replace("_", "-")
        opened += f" {spelled}" if value is True else f' {spelled}="{text(value)}"'
    if name in VOID and not children:
        return Html(f"<{opened}/>" if name in ("rect", "path", "line", "use") else f"<{opened}>")
    return Html(f"<{opened}>{join(*children)}</{name}>")
