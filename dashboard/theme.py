"""Colours and the style of what the dashboard draws as HTML, in light and in dark."""

from __future__ import annotations

from typing import Any

SHARED: dict[str, Any] = {
    "typography": {"fontFamily": "system-ui, 'Segoe UI', Roboto, sans-serif"},
    "shape": {"borderRadius": 10},
}
THEME: dict[str, dict[str, Any]] = {
    "light": {
        **SHARED,
        "palette": {"primary": {"main": "#1f5f5b"}, "secondary": {"main": "#b4552d"}},
    },
    "dark": {
        **SHARED,
        "palette": {"primary": {"main": "#7cc4bd"}, "secondary": {"main": "#e59a72"}},
        "components": {
            "MuiAppBar": {"styleOverrides": {"root": {"backgroundColor": "#17403d"}}},
        },
    },
}

# Borders and quiet text are mixed from the text colour, so that one sheet serves both modes.
STYLE = """
:host { color: inherit; font-family: system-ui, 'Segoe UI', Roboto, sans-serif; font-size: 14px;
        --line: color-mix(in srgb, currentColor 16%, transparent);
        --quiet: color-mix(in srgb, currentColor 68%, transparent); }
a { color: inherit; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); }
.result { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; display: flex;
          flex-direction: column; }
.result img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; background: #8882; }
.result .words { padding: 10px 12px 12px; display: flex; flex-direction: column; gap: 4px;
                 flex: 1; }
.result .title { font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.result .quiet, .quiet { color: var(--quiet); font-size: 13px; overflow-wrap: anywhere; }
.result .like { margin-top: auto; padding-top: 6px; font-size: 13px; display: flex; gap: 8px;
                justify-content: space-between; align-items: baseline; }
.why { font: inherit; color: inherit; background: none; border: 1px solid var(--line);
       border-radius: 999px; padding: 2px 10px; cursor: pointer; }
.why:hover, .why:focus-visible { border-color: currentColor; }
.pair { display: block; max-width: 100%; max-height: 68vh; margin: 0 auto; border-radius: 10px; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px;
         margin: 16px 0 0; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.score { display: flex; align-items: center; gap: 8px; font-variant-numeric: tabular-nums; }
.score .bar { flex: 1; height: 4px; border-radius: 2px; background: var(--line); }
.score .bar span { display: block; height: 100%; border-radius: 2px; background: #3b9a92; }
.empty { border: 1px dashed var(--line); border-radius: 10px; padding: 44px 20px;
         text-align: center; color: var(--quiet); line-height: 1.6; }
.empty strong { display: block; color: inherit; font-size: 16px; margin-bottom: 4px; }
.query { display: flex; gap: 14px; align-items: center; }
.query img { width: 84px; height: 84px; object-fit: cover; border-radius: 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; }
th, td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.key { overflow-wrap: anywhere; min-width: 130px; }
td.words { min-width: 190px; }
td.nowrap { white-space: nowrap; }
.tiles { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.tile { border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; font-weight: 600; font-variant-numeric: tabular-nums; }
h2 { font-size: 17px; margin: 8px 0 10px; font-weight: 600; }
"""
