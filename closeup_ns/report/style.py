"""The page's CSS and its few lines of JavaScript. Nothing in them refers to anything outside the page."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #1c1d21; --dim: #5b5f69; --paper: #fff; --panel: #f3f4f6; --line: #d4d7dd;
  --good: #14733a; --bad: #a3341c; --accent: #1557b0; --known: #7d828c; --anchor: #e07b00; --update: #d9b300;
  --frontier: #2468d6; --target: #c6114b; --real: #2468d6; --made: #c2378a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --dim: #a2a7b2; --paper: #16171b; --panel: #212329;
  --line: #3a3d46; --good: #6fd394; --bad: #ff9d85; --accent: #8ab8ff; --known: #969ba6; --anchor: #ff9d33;
  --update: #f2d23f; --frontier: #6ea2ff; --target: #ff5c8a; --real: #6ea2ff; --made: #f07cc0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .4rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .5rem; }
a { color: var(--accent); }
.dim, figcaption, caption { color: var(--dim); font-size: .875rem; }
caption { text-align: left; padding-bottom: .3rem; caption-side: top; }
.note { border-left: .25rem solid var(--anchor); background: var(--panel); padding: .5rem .8rem; margin: .6rem 0; }
.note ul { margin: .2rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; max-width: 100%; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 20rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; }
thead th { font-size: .85rem; }
tbody th { font-weight: 600; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .25rem .8rem; margin: .6rem 0; }
dt { color: var(--dim); } dd { margin: 0; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
.compare .stack { position: relative; overflow: hidden; border-radius: .3rem; background: var(--panel); --at: 50%; }
.compare .stack { touch-action: pan-y; cursor: ew-resize; }
.compare img { width: 100%; user-select: none; }
.compare .before, .compare .mark-image { position: absolute; inset: 0; }
.compare .before { clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.compare .mark-image { display: none; image-rendering: pixelated; height: 100%; }
.compare .mark:checked ~ .stack .mark-image { display: block; }
.compare .edge { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; }
.tagline { position: absolute; bottom: .3rem; padding: .05rem .4rem; border-radius: .25rem; background: #000b;
  color: #fff; font-size: .75rem; }
.tagline.left { left: .3rem; } .tagline.right { right: .3rem; } .tagline.top { bottom: auto; top: .3rem; left: .3rem; }
.compare input[type=range] { width: 100%; margin: .35rem 0 .1rem; height: 1.6rem; accent-color: var(--accent); }
.compare label { font-size: .875rem; }
.sheet { overflow-x: auto; } .sheet img { min-width: 44rem; }
.plans { display: flex; flex-wrap: wrap; gap: 1.2rem; }
.plan { width: min(100%, 22rem); }
.map { width: 100%; height: auto; background: var(--panel); border-radius: .3rem; }
.ring circle { fill: none; stroke: var(--line); } .ring text { font-size: 10px; fill: var(--dim);
  text-anchor: middle; stroke: var(--panel); stroke-width: 4px; paint-order: stroke; }
.camera circle, .camera rect, .camera path { stroke: var(--paper); stroke-width: 1; }
.camera line { stroke-width: 1.6; }
.known { fill: var(--known); stroke: var(--known); } .anchor { fill: var(--anchor); stroke: var(--anchor); }
.update { fill: var(--update); stroke: var(--update); } .frontier { fill: var(--frontier); stroke: var(--frontier); }
.target { stroke: var(--target); stroke-width: 2.5; fill: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem .9rem; padding: 0; margin: .4rem 0;
  font-size: .875rem; }
.legend .key { width: 14px; height: 14px; vertical-align: -2px; margin-right: .3rem; display: inline-block; }
.target-key { color: var(--target); font-weight: 700; text-align: center; line-height: 14px; }
.share { display: flex; height: .9rem; min-width: 8rem; border-radius: .2rem; overflow: hidden;
  background: var(--panel); }
.share .real { background: var(--real); }
.share .made { background: repeating-linear-gradient(45deg, var(--made) 0 5px, transparent 5px 8px); }
details { margin: .5rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--panel); padding: .6rem; font-size: .8rem; border-radius: .3rem; }
@media print { .compare input { display: none; } }
"""

SCRIPT = """
for (const slider of document.querySelectorAll('.compare input[type=range]')) {
  const stack = slider.closest('.compare').querySelector('.stack');
  const move = () => stack.style.setProperty('--at', slider.value + '%');
  slider.addEventListener('input', move);
  stack.addEventListener('pointermove', event => {
    if (event.pointerType === 'mouse' && !event.buttons) return;
    const box = stack.getBoundingClientRect();
    slider.value = Math.round(100 * (event.clientX - box.left) / box.width);
    move();
  });
  move();
}
"""
