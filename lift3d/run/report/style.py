"""How the report looks; light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1f21; --soft: #63676c;
  --line: #e0e0dc; --accent: #2f6f9f; --bad: #b4482e; }
@media (prefers-color-scheme: dark) { :root { --page: #141618; --card: #1e2124; --ink: #e8e8e6;
  --soft: #a0a5aa; --line: #34383c; --accent: #6fb1df; --bad: #ee9474; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 27px; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 6px 0; } .soft, figcaption, .tile small { color: var(--soft); }
.soft, figcaption { font-size: 13.5px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 10px; }
.group { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px 14px; margin-top: 12px; }
.group h3 { margin: 0 0 6px; font-size: 14px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13.5px; }
.tile small { display: block; font-size: 12.5px; line-height: 1.35; }
.four { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 14px; }
@media (max-width: 700px) { .four { grid-template-columns: 1fr 1fr; }
  .strips { grid-template-columns: 1fr; } }
figure { margin: 0; } img { width: 100%; height: auto; display: block; border-radius: 5px; }
.ramp { display: inline-block; width: 120px; height: 10px; border-radius: 3px; margin: 0 4px; }
.swatch { display: inline-block; width: 14px; height: 14px; border-radius: 3px;
  vertical-align: -2px; margin-right: 8px; border: 1px solid #0003; }
.scroll { max-height: 430px; overflow: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 500;
  box-shadow: 0 1px var(--line); }
th, td { padding: 5px 14px; text-align: right; white-space: nowrap; }
td { border-top: 1px solid var(--line); }
.word { text-align: left; } td.word { white-space: normal; overflow-wrap: anywhere; }
ul { margin: 6px 0; padding-left: 20px; } .bad { color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; overflow-x: auto; font-size: 13.5px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
details { margin-top: 10px; } summary { cursor: pointer; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
svg .bar { fill: var(--accent); } svg .bar:hover { opacity: 0.6; }
svg .mean { stroke: var(--bad); stroke-dasharray: 5 4; }
"""
