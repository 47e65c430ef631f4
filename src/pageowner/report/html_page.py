"""The pages that we write, each a file that needs nothing else: a template with its scripts."""

from __future__ import annotations

from importlib import resources

__all__ = ["template"]

_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
"""
"""How every page begins: it may load nothing, and tells nobody where it is."""

_BUTTONS = """\
button { cursor: pointer; }
button:hover, button:focus-visible { border-color: #999; }
.entry { display: flex; width: 100%; gap: .6em; text-align: left; border-color: transparent;
         background: none; padding: .1em .2em; }
.entry i { flex: none; width: 1.1em; height: 1.1em; margin-top: .15em; border: 1px solid #555; }
.entry span { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.entry b { font-weight: normal; font-variant-numeric: tabular-nums; color: #aaa; }"""
"""Buttons, and entries of a legend."""

_NARROW = """\
@media (max-width: 640px) {
  header { flex-wrap: wrap; }
  main { flex-direction: column; }
  aside { width: auto; max-height: 45%; border-left: none; border-top: 1px solid #333; }
}"""
"""How a page is laid out on a phone."""


def template(folder: str, *scripts: str) -> str:
    """``page.html`` of a folder of report/, behind the head of all pages and with these scripts."""
    here = resources.files("pageowner.report").joinpath(folder)
    page, *texts = (here.joinpath(name).read_text(encoding="utf-8")
                    for name in ("page.html", *scripts))
    for place, text in (("/*SHARED*/", _BUTTONS), ("/*NARROW*/", _NARROW),
                        ("/*SCRIPT*/", "\n".join(texts))):
        page = page.replace(place, text)
    return _HEAD + page
