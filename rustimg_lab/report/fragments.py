"""What a notebook shows -> a fragment of the page: no foreign markup, small figures, tables that scroll."""

import base64
import io
import re

import pandas as pd
from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.element import PreformattedString
from markupsafe import escape
from nbconvert.filters import markdown2html
from PIL import Image

COLOURS = 16  # of a figure: a plot has few, and is much smaller with no more
PICTURE = re.compile("data:image/(png|webp);base64,")
MANY_ROWS = 8  # of a table that is shown in part at first
MARKUP = {
    *("h1", "h2", "h3", "h4", "h5", "p", "div", "span", "blockquote", "pre", "hr", "br", "details", "summary"),
    *("a", "b", "code", "em", "i", "strong", "sub", "sup", "ul", "ol", "li", "img"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}
KEPT = ("href", "src", "alt", "colspan", "rowspan")
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(%|x|\s(MB|kB|ms|µs|s))?")
NO_NUMBER = ("", "not measured", "no number")


def of_markdown(text: str, prefix: str = "") -> str:
    """Return Markdown as a fragment of HTML. Headings are a level lower, and their ids begin with `prefix` ("" for no
    ids)."""
    return tidy(markdown2html(text), prefix=prefix)


def of_output(output: dict, caption: str = "", reduced: bool = False) -> str:
    """Return an output of a notebook's cell as a fragment of HTML; "" for an output that shows nothing. `caption`: the
    name of a table for a screen reader. `reduced`: a long table shows the rows that matter until a reader requests
    all."""
    data = output.get("data", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return tidy(f'<img src="data:image/png;base64,{data["image/png"]}" alt="{escape(alt)}">')
    if "text/html" in data:
        return tidy(data["text/html"], caption, reduced)
    if "text/markdown" in data:
        return of_markdown(data["text/markdown"])
    text = (output.get("text", "") or data.get("text/plain", "")).rstrip()
    kind = "pre" if "\n" in text else "p"  # a line that was printed is a sentence, and more lines are a text to copy
    return f"<{kind}>{escape(text)}</{kind}>" if text.strip() else ""


def of_table(table: pd.DataFrame, caption: str) -> str:
    """Return a table of text as a fragment of HTML. `caption` names the table for a screen reader."""
    return tidy(table.to_html(index=False, border=0), caption)


def tidy(fragment: str, caption: str = "", reduced: bool = False, prefix: str = "") -> str:
    """Return a fragment of HTML as the page has it: no foreign markup, small figures, tables that scroll. `caption` and
    `reduced` as in `of_output`, `prefix` as in `of_markdown`."""
    soup = BeautifulSoup(fragment, "html.parser")
    for tag in soup(["style", "script"]) + soup.select("a.anchor-link"):
        tag.decompose()
    _as_text(soup)
    for heading in soup(["h5", "h4", "h3", "h2", "h1"]):
        heading.name = f"h{int(heading.name[1]) + 1}"
    for tag in soup(True):
        has_name = prefix and tag.name in ("h2", "h3", "h4") and tag.get("id")
        identifier = {"id": f"{prefix}-{tag['id']}"} if has_name else {}
        attributes = {name: tag[name] for name in KEPT if name in tag.attrs}
        if tag.name == "td" and "matters" in tag.get("class", ()):
            tag.parent["class"] = "matters"
        tag.attrs = attributes | identifier
    for tag in soup("div"):
        tag.unwrap()
    for table in soup("table"):
        _tidy_table(soup, table, caption, reduced)
    for image in soup("img"):
        image.wrap(soup.new_tag("figure"))
    return re.sub(r"\s*\n\s*(?=</?(?:table|caption|thead|tbody|t[rhd])\b)", "", re.sub(r"\n\s*\n+", "\n", str(soup)))


def smaller(picture: bytes, form: str = "WEBP") -> bytes:
    """Return a picture with at most `COLOURS` colours, in the format `form` (WEBP or PNG). Raises OSError when the
    bytes are no picture, or a part of one."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    if form == "PNG":
        image.save(buffer, form, optimize=True)
    else:
        image.convert("RGB").save(buffer, form, lossless=True, quality=80, method=4)
    return buffer.getvalue()


def is_number(values: pd.Series) -> bool:
    """Return whether a column of text has numbers and nothing else. The texts in `NO_NUMBER` are ignored."""
    texts = values[~values.isin(NO_NUMBER)]
    return len(texts) > 0 and all(NUMBER.fullmatch(value) for value in texts)


def _as_text(soup: BeautifulSoup) -> None:
    """Turn markup that a page has no use for into text, since runs come from strangers. Figures stay, made smaller."""
    for element in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):  # comments, CDATA
        element.replace_with(NavigableString(element.output_ready()))
    for element in soup(True):
        if element.name == "img" and (picture := _picture(element.get("src", ""))):
            element["src"] = picture
        elif (element.name not in MARKUP or element.name == "img") and element.parent is not None:
            element.replace_with(str(element))
        elif element.name == "a" and not re.match(r"https?://|#", element.get("href", "")):
            element.unwrap()  # as to a file of the lab's, which is not beside the page


def _picture(source: str) -> str:
    """Return a figure (a data URL) made smaller; "" when `source` is no figure."""
    try:
        picture = smaller(base64.b64decode(source.partition(",")[2])) if PICTURE.match(source) else b""
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):  # as Pillow has it of a damaged one
        return ""
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}" if picture else ""


def _tidy_table(soup: BeautifulSoup, table: Tag, caption: str, reduced: bool) -> None:
    """Name a table and its columns, and mark columns of numbers and rows that are hidden at first. Wrap the table so
    that it scrolls."""
    rows = [row.find_all(["th", "td"]) for row in table("tr")]
    for place in range(min(map(len, rows), default=0)):
        column = [row[place] for row in rows]
        if is_number(pd.Series([cell.get_text().strip() for cell in column if cell.name == "td"], dtype=str)):
            for cell in column:
                if cell.find_parent("thead"):
                    cell["class"] = "number"  # by which page.css aligns the whole column
    for cell in table.select("thead th"):
        cell["scope"] = "col"
    if not (caption_tag := table.find("caption")):
        caption_tag = soup.new_tag("caption")
        table.insert(0, caption_tag)
    caption_tag.insert(0, soup.new_tag("span", attrs={"class": "unseen"}, string=f"{caption or 'Table'}. "))
    region = {"class": "table", "tabindex": "0", "role": "region", "aria-label": caption or "Table"}
    body = table.select("tbody > tr")
    frame = table.wrap(soup.new_tag("div", attrs=region)).wrap(soup.new_tag("div", attrs={"class": "rows"}))
    if reduced and len(body) > MANY_ROWS:
        marked = table.select("tr.matters") or body[:MANY_ROWS]
        for row in body:
            row["class"] = "matters" if any(row is marked_row for marked_row in marked) else "minor"
        label = soup.new_tag("label", attrs={"class": "every"}, string=f"Show all {len(body)} rows")
        label.insert(0, soup.new_tag("input", attrs={"type": "checkbox", "autocomplete": "off"}))
        frame.insert(0, label)
