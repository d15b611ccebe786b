"""What the page of the reproduction adds to the style sheet of the report."""

CSS = """
:root { --good: #1b7a3d; --bad: #b3261e; --mixed: #8a6100; --untested: var(--soft); }
@media (prefers-color-scheme: dark) {
  :root { --good: #6fcf8f; --bad: #ff8a80; --mixed: #e8bd5a; }
}
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .88rem; margin: 1.6rem 0 0; }
h4 { font: 600 .95rem/1.4 var(--sans); margin: 0 0 .6rem; }
.group { margin: 0 0 2.2rem; }
.intro p.modes { margin-top: .8rem; }
.claims + .note { margin-top: 1rem; }
.claims { table-layout: auto; }
.claims thead th:first-child { width: 34%; }
.claims tbody th { font-size: 1rem; font-weight: 500; max-width: 26rem; }
.claims td { font-size: .9rem; }
.claims td:last-child { padding-right: 0; }
.verdict-word { font-weight: 700; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .mixed { color: var(--mixed); }
.untested { color: var(--untested); } .failed { color: var(--bad); }
.full-table thead th { vertical-align: bottom; }
.paired tbody th { vertical-align: top; max-width: 16rem; min-width: 9.5rem; font-size: .84rem;
  overflow-wrap: anywhere; }
.paired tbody tr:not(:has(th)) { border-top-color: transparent; }
.paired tbody tr:not(:has(th)) td { padding-top: 0; }
.runs { width: max-content; font-size: .82rem; }
.runs td { padding: .4rem .6rem; }
.runs tbody th { word-break: break-all; min-width: 9.5rem; max-width: 14rem; }
.runs .failed { display: inline-block; white-space: normal; min-width: 12rem; max-width: 24rem;
  text-align: left; }
.strip { margin-bottom: 1.2rem; }
.strip .cards { grid-template-columns: repeat(6, minmax(0, 1fr)); max-width: 62rem; }
.strip .card { grid-row: span 3; row-gap: .3rem; margin-bottom: 0; }
.of-run { font: .88rem/1.5 var(--sans); margin: 1.2rem 0 .7rem; }
@media (max-width: 44rem) {
  .strip .cards { grid-template-columns: 1fr 1fr; gap: .3rem .7rem; }
  .strip .card { margin-bottom: .7rem; }
  .claims tbody th { max-width: none; }
  .claims tr { grid-template-columns: 1fr 1fr; }
  .claims td:last-child { grid-column: 1 / -1; }
  .filter-row { gap: .8rem; }
  .filter-row .filters { flex-basis: 27%; }
  .alone .filters { flex-basis: 40%; }
}
"""
