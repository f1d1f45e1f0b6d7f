// Tables sort and filter; charts are drawn as they come into view, then in idle time.
const page = document.documentElement;

function grid(table) {
  const rows = table.tBodies[0].rows.length;
  const label = table.parentElement.getAttribute("aria-label");
  const outer = table.parentElement;
  outer.removeAttribute("role");
  outer.removeAttribute("tabindex");
  outer.removeAttribute("aria-label");
  outer.classList.remove("scroll");
  new DataTable(table, {
    paging: rows > 100, pageLength: 100, order: [], autoWidth: false,
    layout: { topStart: "info", topEnd: "search", bottomStart: null },
    language: { search: "Filter", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no rows", zeroRecords: "No row holds this." },
  });
  const inner = table.closest(".dt-layout-cell") ?? table.parentElement;
  inner.classList.add("scroll");
  inner.setAttribute("role", "region");
  inner.setAttribute("tabindex", "0");
  inner.setAttribute("aria-label", label);
}

async function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "begun";
  const spec = JSON.parse(place.nextElementSibling.textContent);
  await vegaEmbed(place, spec, {
    mode: "vega-lite", renderer: "svg", ast: true, actions: false,
    defaultStyle: false, tooltip: { disableDefaultStyle: true },
  });
  place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place says what it shows
  place.dataset.drawn = "done";
}

async function drawAll() {
  const charts = [...document.querySelectorAll(".chart")];
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
  }, { rootMargin: "400px" });
  charts.forEach((chart) => seen.observe(chart));
  for (const chart of charts) {
    await new Promise((next) => setTimeout(next));
    await draw(chart);
  }
  page.dataset.ready = "yes";
}

for (const table of document.querySelectorAll("table[data-grid]")) grid(table);
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
drawAll();
