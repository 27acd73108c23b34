// The page works without this script. With it, the chart is drawn from the table's cells, and what is shown stays fresh.
"use strict";

const FRESH_MS = 5000;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawChart() {
  const place = document.getElementById("chart");
  const table = document.getElementById("hours");
  if (!place || !table || !window.uPlot) return;
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const rows = [...table.tBodies[0].rows];
  const number = (text) => (text.trim() === "" ? null : Number(text));
  const columns = [rows.map((row) => Number(row.querySelector("data").value))];
  for (const column of [1, 2, 3, 4]) columns.push(rows.map((row) => number(row.cells[column].textContent)));
  const [ink, edge] = [colour("--soft"), colour("--edge")];
  const axis = (more) => ({ stroke: ink, grid: { stroke: edge }, ticks: { stroke: edge }, ...more });
  const bars = uPlot.paths.bars({ size: [0.7, 24] });
  place.replaceChildren();
  new uPlot({
    width: place.clientWidth, height: 220, legend: { live: false }, cursor: { show: false },
    scales: { count: { range: (_, __, most) => [0, Math.max(4, most)] }, ms: { range: (_, __, most) => [0, Math.max(1, most * 1.1)] } },
    axes: [
      axis({ values: (_, seconds) => seconds.map((at) => hourOf(rows, columns[0], at)) }),
      axis({ scale: "count", size: 40, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000] }),
      axis({ scale: "ms", side: 1, size: 56, grid: { show: false } }),
    ],
    series: [
      {},
      { label: names[1], scale: "count", stroke: colour("--good"), fill: colour("--good"), paths: bars, points: { show: false } },
      { label: names[2], scale: "count", stroke: colour("--link"), width: 2 },
      { label: names[3], scale: "count", stroke: colour("--bad"), fill: colour("--bad"), paths: bars, points: { show: false } },
      { label: names[4], scale: "ms", stroke: ink, dash: [4, 4] },
    ],
  }, columns, place);
}

// The server says what an hour is called: in its language and its time zone.
function hourOf(rows, begins, at) {
  const row = rows[begins.indexOf(at)];
  return row ? row.querySelector("data").dataset.short : "";
}

async function refresh() {
  const shown = document.querySelector("main[data-live]");
  if (!shown) return;
  if (!document.hidden) await renew(shown);
  setTimeout(refresh, FRESH_MS);
}

async function renew(shown) {
  const stale = document.getElementById("stale");
  try {
    const reply = await fetch(location.href, { cache: "no-store" });
    if (!reply.ok) throw new Error(reply.status);
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("live");
    const open = shown.querySelector("details")?.open;
    shown.replaceChildren(...fresh.childNodes);
    if (open) shown.querySelector("details").open = true;
    stale.hidden = true;
    drawChart();
  } catch {
    stale.hidden = false;
  }
}

drawChart();
setTimeout(refresh, FRESH_MS);
addEventListener("resize", drawChart);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawChart);
