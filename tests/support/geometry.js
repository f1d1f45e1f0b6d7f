() => {
  const found = [], width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  const said = (e) => e.outerHTML.slice(0, 90);
  const inScroll = (e) => e.closest(".scroll, pre, details:not([open])");
  for (const e of document.querySelectorAll("main *:not(script)")) {
    const box = e.getBoundingClientRect();
    if (box.width && !inScroll(e) && !e.closest("svg") && (box.right > width + 1 || box.left < -1))
      found.push("beyond the page: " + said(e));
  }
  for (const e of document.querySelectorAll("td, th"))
    if (e.scrollWidth > e.clientWidth + 1) found.push("clipped: " + said(e));
  const charts = [...document.querySelectorAll(".chart")];
  for (const e of charts) {
    const svg = e.querySelector("svg"), outer = e.getBoundingClientRect();
    if (!svg) { found.push("not drawn: " + e.getAttribute("aria-label")); continue; }
    const frame = svg.getBoundingClientRect();
    if (frame.right > outer.right + 1) found.push("wider than its place: " + e.getAttribute("aria-label"));
    const marks = svg.querySelectorAll(".mark-line path, .mark-symbol path, .mark-rect path, .mark-area path, .mark-rule line");
    if (!marks.length) found.push("blank: " + e.getAttribute("aria-label"));
    const texts = [...svg.querySelectorAll("text")].filter((t) => t.textContent && t.getBoundingClientRect().width && getComputedStyle(t).opacity > 0);
    const boxes = texts.map((t) => t.getBoundingClientRect());
    boxes.forEach((box, i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        found.push("text out of its chart: " + texts[i].textContent);
      for (let j = 0; j < i; j++) {
        const other = boxes[j];
        const across = Math.min(box.right, other.right) - Math.max(box.left, other.left);
        const down = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
        if (across > 1.5 && down > 3) found.push(`texts overlap: ${texts[j].textContent} / ${texts[i].textContent}`);
      }
    });
    const panel = svg.querySelector(".root > g > .background, .root .background").getBoundingClientRect();
    for (const key of svg.querySelectorAll(".role-legend")) {
      const box = key.getBoundingClientRect();
      if (box.bottom > panel.top + 1 && box.top < panel.bottom - 1 && box.right > panel.left + 1 && box.left < panel.right - 1)
        found.push("a legend lies over the data: " + e.getAttribute("aria-label"));
    }
  }
  const blocks = [...document.querySelectorAll("main > *, .cards > *, .figures > *, .method > *")];
  for (const e of blocks) {
    const next = e.nextElementSibling;
    if (!next || !e.offsetHeight || !next.offsetHeight) continue;
    const a = e.getBoundingClientRect(), b = next.getBoundingClientRect();
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 1) found.push("overlap: " + said(e) + " / " + said(next));
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
  if (twice.length) found.push("ids twice: " + twice.join(" "));
  return found;
}
