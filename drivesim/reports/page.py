"""One self-contained HTML file: style, scripts and data inside; nothing is ever asked of a network."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

# The browser itself refuses every request: what the page claims is enforced.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def asset(name: str) -> str:
    """Text of a style sheet or script of this package."""
    return (resources.files("drivesim.reports") / name).read_text(encoding="utf-8")


def data_tag(name: str, value: Any) -> str:
    """A JSON block that the page's script parses when it needs it.

    Raises:
        ValueError: the value holds NaN or infinity.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    # No "<" may survive: "</script>" inside a text would end the block.
    return f'<script type="application/json" id="{html.escape(name)}">{text.replace("<", chr(92) + "u003c")}</script>'


def page(title: str, scripts: tuple[str, ...], data: dict[str, Any]) -> str:
    """The whole file.

    Args:
        title: of the browser tab.
        scripts: assets in order; the last one starts the page.
        data: element id -> JSON value.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        f"<style>{asset('style.css')}</style></head>",
        '<body><main id="page"><noscript>This report draws itself with a script.</noscript></main>',
        *(data_tag(name, value) for name, value in data.items()),
        "<script>'use strict';(() => {",
        *(asset(name) for name in scripts),
        "})();</script></body></html>",
    ]
    return "\n".join(parts) + "\n"
