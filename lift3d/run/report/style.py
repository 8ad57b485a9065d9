"""The report's style sheet; light or dark by the setting of the reader's system."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #fff; --ink: #1d1f21; --soft: #63676c;
  --line: #e0e0dc; --accent: #2f6f9f; --bad: #b4482e; }
@media (prefers-color-scheme: dark) { :root { --page: #141618; --card: #1e2124; --ink: #e8e8e6;
  --soft: #a0a5aa; --line: #34383c; --accent: #6fb1df; --bad: #ee9474; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 27px; margin: 0; letter-spacing: -0.01em; overflow-wrap: break-word; }
h2 { font-size: 18px; margin: 36px 0 10px; } h3 { margin: 0 0 6px; font-size: 14px; }
p { margin: 6px 0; } .soft, figcaption, small { color: var(--soft); }
.soft, figcaption { font-size: 13.5px; } figcaption { margin: 4px 0; }
.group { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px 14px; margin-top: 12px; }
.verdict { font-size: 18px; line-height: 1.45; margin: 2px 0 8px; font-weight: 500; }
code { background: var(--page); border: 1px solid var(--line); border-radius: 5px;
  padding: 1px 6px; font-size: 13.5px; overflow-wrap: break-word; }
.number-row { display: grid; grid-template-columns: 92px 1fr; gap: 4px 14px; padding: 5px 0;
  border-top: 1px solid var(--line); align-items: baseline; }
h3 + .number-row { border-top: 0; }
.number-row b { font-size: 18px; font-weight: 600; font-variant-numeric: tabular-nums; }
.number-row p { margin: 0; } .number-row small { display: block; font-size: 13px; }
.four { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 10px;
  margin: 8px 0; align-items: start; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 8px 10px; }
.card .zoom, .nothing { height: 122px; margin: 0 auto 6px; }
.nothing { display: grid; place-items: center; background: var(--page); border-radius: 5px; }
.card b, .card small { display: block; line-height: 1.4; }
.card small { font-size: 12.5px; } .card .bad { color: var(--bad); }
h3 { margin-top: 14px; } .group h3 { margin-top: 0; }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 8px;
  margin-top: 8px; align-items: end; }
.thumbs figcaption { font-size: 12px; margin: 2px 0 0; overflow-wrap: break-word; }
figure { margin: 0; } figure:target { outline: 3px solid var(--accent); outline-offset: 4px; }
.zoom { display: block; cursor: zoom-in; position: relative; max-width: 100%; }
.zoom img { width: 100%; height: 100%; object-fit: contain; display: block; border-radius: 5px; }
.zoom input { position: absolute; opacity: 0; }
.zoom input:focus-visible + img { outline: 3px solid var(--accent); }
.zoom input:checked + img { position: fixed; inset: 0; width: 100vw; height: 100vh; z-index: 9;
  padding: 2vmin; background: #111e; border-radius: 0; cursor: zoom-out; }
.ramp { display: inline-block; width: 120px; height: 10px; border-radius: 3px; margin: 0 4px; }
.swatch { display: inline-block; width: 14px; height: 14px; border-radius: 3px;
  vertical-align: -2px; margin-right: 7px; border: 1px solid #0003; }
.table { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th, td { padding: 5px 14px; text-align: right; }
td { border-top: 1px solid var(--line); }
td.number { white-space: nowrap; }
.word { text-align: left; } .pairs td.word { overflow-wrap: anywhere; }
ul { margin: 6px 0; padding-left: 20px; } .bad { color: var(--bad); }
li { overflow-wrap: break-word; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; font-size: 13.5px; white-space: pre-wrap; overflow-wrap: break-word; }
details { margin-top: 10px; } summary { cursor: pointer; }
.chart { display: grid; grid-template-columns: 46px 1fr; row-gap: 4px; }
.chart svg { width: 100%; height: 170px; display: block; }
.ticks { position: relative; height: 170px; font-size: 12px; color: var(--soft); }
.ticks span { position: absolute; right: 8px; transform: translateY(50%); white-space: nowrap; }
.ends { grid-column: 2; display: flex; justify-content: space-between; gap: 12px;
  font-size: 12.5px; color: var(--soft); }
svg line { vector-effect: non-scaling-stroke; } svg .grid { stroke: var(--line); }
svg .bar { fill: var(--accent); } svg .worst { fill: var(--bad); } svg a:hover { opacity: 0.6; }
svg .mean { stroke: var(--bad); stroke-dasharray: 5 4; }
@media (max-width: 700px) { main { padding: 18px 12px 40px; }
  .four { grid-template-columns: 1fr 1fr; }
  .strips { grid-template-columns: 1fr; } h1 { font-size: 23px; } .verdict { font-size: 16.5px; }
  .group { padding: 10px 12px; } th, td { padding: 5px 8px; font-size: 13px; }
  .number-row { grid-template-columns: 74px 1fr; } .number-row b { font-size: 16px; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .pairs thead { display: none; } .pairs tr { display: block; padding: 4px 0;
    border-top: 1px solid var(--line); } .pairs td { display: block; border: 0;
    padding: 1px 8px; } }
"""
