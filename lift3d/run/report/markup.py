"""Build HTML with all texts escaped."""

from __future__ import annotations

from html import escape

from lift3d.scene.printing import printable

VOID = {"img", "meta", "br", "input"}


class Markup(str):
    """Text that is HTML already; all other text is escaped."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An HTML element; `class_` is the attribute class, `_` in names becomes `-`.

    >>> element("td", "a < b", class_="number")
    '<td class="number">a &lt; b</td>'
    """
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    given = "".join(f' {name}="{escape(printable(value))}"' for name, value in names.items())
    if tag in VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{joined(*children)}</{tag}>")


def joined(*children: object) -> Markup:
    """The children concatenated, texts escaped."""
    return Markup("".join(c if isinstance(c, Markup) else escape(printable(c)) for c in children))


def table(
    head: list[str], rows: list[list[object]], words: int = 1, kind: str = "numbers"
) -> Markup:
    """A table; the cells after the first `words` columns are numbers, aligned right.

    `kind` is the style: "numbers", or "pairs", whose cells are below each other on a phone.
    """

    def row(tag: str, cells: list[object]) -> Markup:
        return element(
            "tr",
            *(
                element(tag, cell, class_="word" if at < words else "number")
                for at, cell in enumerate(cells)
            ),
        )

    top = element("thead", row("th", list(head)))
    body = element("tbody", *(row("td", cells) for cells in rows))
    return element("div", element("table", top, body), class_=f"table {kind}")


def zoom(source: str, what: str, shape: tuple[int, ...]) -> Markup:
    """A picture that a click enlarges and another click shrinks, without a script.

    `shape` (height, width, ...) reserves its place on the page while it is enlarged.
    """
    box = element("input", type="checkbox", aria_label=f"{what}, enlarge")
    image = element("img", src=source, alt=what)
    place = f"aspect-ratio: {shape[1]} / {shape[0]}"
    return element("label", box, image, class_="zoom", style=place)
