"""Style sheet and little script of the page, which is complete without the script."""

from experiments.methods import FURTHER, METHODS


def _variables(paper):
    """The colours of the methods on light (0) or dark (1) paper, as CSS."""
    shown = {**METHODS, FURTHER.key: FURTHER}
    return " ".join(f"--{key}: {method.colours[paper]};" for key, method in shown.items())


CSS = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf8; --card: #f3f1ea; --ink: #1e1d1a; --soft: #6a675f; --line: #dedad0;
  LIGHT
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141518; --card: #1d1f23; --ink: #e9e6df; --soft: #a19d94; --line: #34363b;
    DARK
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 var(--serif); font-variant-numeric: lining-nums; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 clamp(1rem, 4vw, 2.5rem); }
header { padding-top: clamp(2rem, 6vw, 4.5rem); }
h1 { font-size: clamp(1.9rem, 4.6vw, 3.1rem); line-height: 1.12; font-weight: 600;
  letter-spacing: -.015em; margin: 0 0 1.2rem; max-width: 20em; text-wrap: balance; }
h2 { font-size: clamp(1.6rem, 3.2vw, 2.2rem); line-height: 1.2; font-weight: 600;
  letter-spacing: -.01em; margin: 0 0 .4rem; }
h3 { font: 600 .8rem/1.4 var(--sans); letter-spacing: .07em; text-transform: uppercase;
  color: var(--soft); margin: 2.6rem 0 .7rem; }
p { margin: 0 0 1rem; max-width: 42em; text-wrap: pretty; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .18em; }
a:hover { text-decoration-color: currentColor; }
.kicker, .note, .when, th, td, .who, .score, .legend, figcaption, .scale, .filters p, summary,
dl, nav { font-family: var(--sans); }
.kicker { font-size: .8rem; letter-spacing: .07em; text-transform: uppercase; color: var(--soft);
  margin-bottom: .8rem; }
.note, .when { font-size: .84rem; line-height: 1.5; color: var(--soft); max-width: 60em; }
.plots + .note, .filter-row + .note { margin-top: 1.2rem; }
.lead { font-size: 1.16rem; }
.intro { display: grid; grid-template-columns: 1fr; gap: 1rem 3rem; margin-bottom: 2.2rem; }
.intro p { margin: 0; }
@media (min-width: 60rem) { .intro { grid-template-columns: minmax(0, 8fr) minmax(0, 7fr); } }
.formulas { display: grid; gap: .8rem; align-content: start; }
.formulas div { background: var(--card); border-radius: .6rem; padding: 1rem 1.3rem 1.1rem; }
.formulas b { display: block; font: 600 .84rem var(--sans); margin-bottom: .35rem; }
.formula { font-size: 1.25rem; white-space: nowrap; }
.formula small { font-size: 1rem; color: var(--soft); display: block; white-space: normal; }
sub { font-size: .7em; line-height: 0; }

table { border-collapse: collapse; font-size: .92rem; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums; width: 100%; }
th { font-weight: 500; text-align: left; }
thead th { color: var(--soft); font-size: .82rem; vertical-align: bottom; padding: .4rem .6rem; }
thead small { display: block; font-weight: 400; font-size: .74rem; }
tbody tr { border-top: 1px solid var(--line); }
.chip { display: inline-block; width: .62em; height: .62em; border-radius: 50%;
  margin-right: .5em; flex: none; }
.summary { table-layout: fixed; }
.summary thead th:first-child { width: 16%; }
.summary td, .summary th { padding: .85rem 1rem .85rem 0; vertical-align: top; }
.summary thead th { padding: .4rem 1rem .4rem 0; vertical-align: bottom; }
.summary tbody th { font: 600 1.12rem/1.4 var(--serif); }
.summary .big { font-size: 1.2rem; white-space: nowrap; }
.unit { font-size: .8rem; color: var(--soft); }
.small { font-size: .8rem; color: var(--soft); }
.bar { display: block; height: .3rem; background: var(--line); border-radius: .2rem;
  margin: .35rem 0 .3rem; overflow: hidden; }
.bar i { display: block; height: 100%; border-radius: .2rem; }
.scroll { overflow-x: auto; margin: 0 0 1rem; }
.full-table { min-width: 56rem; }
.full-table td { text-align: right; padding: .55rem .6rem; white-space: nowrap; }
.full-table thead th { text-align: right; }
.full-table th:first-child, .full-table .name { text-align: left; padding-left: 0;
  white-space: normal; }
.full-table tbody th { padding: .55rem .6rem; }
.full-table th:first-child { position: sticky; left: 0; background: var(--paper); }
.each { min-width: 40rem; }
.each thead th:nth-child(2) { text-align: left; }
td strong, .score strong { font-weight: 700; }

section { border-top: 1px solid var(--line); margin-top: clamp(2.5rem, 6vw, 4.5rem);
  padding-top: clamp(1.6rem, 4vw, 2.6rem); }
.description { color: var(--soft); margin-bottom: 1.1rem; }
.verdict { font-size: 1.16rem; }
figure { margin: 0; }
.shots { margin-bottom: 2.4rem; }
.shots > figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .5rem; }
.cards { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 0 .8rem; }
.card { display: grid; grid-row: span 5; grid-template-rows: subgrid; row-gap: .5rem;
  align-content: start; min-width: 0; }
.card p { margin: 0; }
.who { font-size: .84rem; line-height: 1.3; align-self: end; padding-left: 1.1em;
  text-indent: -1.1em; }
.truth .who { padding-left: 0; text-indent: 0; }
.who .chip { margin-right: .48em; }
.score { font-size: .9rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
.score span, .truth .score { color: var(--soft); font-size: .78rem; }
.score span { white-space: nowrap; }
.shot { position: relative; line-height: 0; border-radius: 3px; overflow: hidden;
  align-self: start; }
.shot img { width: 100%; height: auto; }
.shot img[tabindex] { cursor: zoom-in; }
.crisp { image-rendering: pixelated; }
.mark { position: absolute; border: 1.5px solid #fff; outline: 1.5px solid #000;
  pointer-events: none; }
.scale { align-self: center; font-size: .78rem; line-height: 1.35; color: var(--soft); }
.scale p { margin-bottom: .5rem; }
.ramp { display: block; height: .8rem; border-radius: 2px; }
.ends { display: flex; justify-content: space-between; margin-top: .25rem;
  font-variant-numeric: tabular-nums; }
.filter-row { display: flex; flex-wrap: wrap; gap: 1.6rem 2.2rem; }
.filters { flex: 1 1 15rem; min-width: 0; }
.filters figcaption { font-size: .84rem; line-height: 1.35; margin-bottom: .5rem; }
.filters img { width: 100%; height: auto; display: block; }
.filters p { font-size: .78rem; color: var(--soft); margin: .4rem 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; font-size: .84rem;
  margin-bottom: .9rem; }
.legend span { display: inline-flex; align-items: center; gap: .5em; }
.legend svg { width: 2.4em; height: .8em; overflow: visible; }
.plots { display: grid; gap: 1.6rem 2.4rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.plots figcaption { font-size: .84rem; font-weight: 600; }
.plots svg { width: 100%; max-width: 40rem; height: auto; display: block; }
.plots svg * { stroke-linejoin: round; }
.plots svg text { font-family: var(--sans) !important; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-size: .92rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1.4rem;
  font-size: .9rem; line-height: 1.5; margin: 0 0 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { font: .84rem/1.5 var(--mono); background: var(--card); border-radius: .6rem;
  padding: 1rem 1.2rem; overflow-x: auto; margin: .6rem 0 1rem; }
footer { padding-bottom: 4rem; }
dialog { border: 0; padding: 0; width: 100vw; height: 100dvh; max-width: none; max-height: none;
  background: #0c0c0d; color: #eee; font: .95rem var(--sans); }
dialog[open] { display: flex; flex-direction: column; }
dialog img { flex: 1; min-height: 0; width: 100%; object-fit: contain; }
dialog div { display: flex; flex-wrap: wrap; justify-content: center; gap: .4rem;
  padding: .8rem; }
dialog button { font: inherit; color: inherit; background: #26272b; border: 0;
  border-radius: 2rem; padding: .45rem .95rem; cursor: pointer; }
dialog button[aria-pressed=true] { background: #eee; color: #111; }
@media (max-width: 44rem) {
  body { font-size: 1rem; }
  .summary, .summary tbody { display: block; }
  .summary thead { display: none; }
  .summary tr { display: grid; grid-template-columns: 1fr 1fr; gap: .9rem 1.2rem;
    padding: 1rem 0; }
  .summary td { display: block; padding: 0; }
  .summary td::before { content: attr(data-label); display: block; font-size: .8rem;
    color: var(--soft); }
  .summary tbody th { grid-column: 1 / -1; padding: 0; }
  .cards { grid-template-columns: 1fr 1fr; gap: 0 .7rem; }
  .card { margin-bottom: 1.4rem; }
  .truth { grid-column: 1 / -1; grid-row: auto; grid-template: auto auto auto / 1fr 1fr;
    column-gap: .7rem; }
  .truth .who { grid-column: 1 / -1; }
  .truth .score { grid-area: 3 / 1; } .truth .detail { grid-area: 2 / 2; }
  .truth .scale { grid-area: 3 / 2; }
  .filters { flex-basis: 100%; }
  .full-table { min-width: 62rem; } .each { min-width: 44rem; }
  .full-table th:first-child { min-width: 9.5rem; max-width: 9.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .6rem; }
}
@media print { section, figure { break-inside: avoid-page; } }
""".replace("LIGHT", _variables(0)).replace("DARK", _variables(1))

# Click a picture: it fills the window, and the arrow keys flip between the methods in place,
# which shows more than any two pictures side by side.
SCRIPT = """
(() => {
  const box = document.body.appendChild(document.createElement('dialog'));
  const big = box.appendChild(new Image()), bar = box.appendChild(document.createElement('div'));
  if (!box.showModal) return;
  let row = [], at = 0;
  const show = i => {
    at = (i + row.length) % row.length;
    big.src = row[at].src; big.alt = row[at].alt;
    big.className = row[at].className;
    [...bar.children].forEach((b, j) => b.setAttribute('aria-pressed', j === at));
  };
  const button = (text, act) => {
    const b = bar.appendChild(document.createElement('button'));
    b.textContent = text; b.onclick = act;
  };
  const open = (images, i) => {
    row = images; bar.replaceChildren();
    row.forEach((image, j) => button(image.dataset.caption, () => show(j)));
    button('Close', () => box.close());
    box.showModal(); show(i);
  };
  big.onclick = () => show(at + 1);
  box.onkeydown = e => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[e.key];
    if (step) { show(at + step); e.preventDefault(); }
    if (e.key >= '1' && e.key <= row.length) show(e.key - 1);
  };
  document.querySelectorAll('.shots').forEach(shots => {
    ['whole', 'detail', 'error'].forEach(kind => {
      const images = [...shots.querySelectorAll('.' + kind + ' img')];
      images.forEach((image, i) => {
        image.tabIndex = 0; image.setAttribute('role', 'button');
        image.onclick = () => open(images, i);
        image.onkeydown = e => { if (e.key === 'Enter') open(images, i); };
      });
    });
  });
  document.querySelectorAll('.hint').forEach(p => { p.hidden = false; });
})();
"""
