"use strict";
(() => {
  const tip = document.getElementById("tip");

  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, x + 14), innerWidth - box.width - 8);
    const top = y - box.height - 14 > 8 ? y - box.height - 14 : y + 18;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  const hide = () => { tip.hidden = true; };

  for (const mark of document.querySelectorAll("[data-tip]")) {
    mark.addEventListener("pointerenter", (event) => show(mark.dataset.tip, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("focus", () => {
      const box = mark.getBoundingClientRect();
      show(mark.dataset.tip, box.right, box.top);
    });
    mark.addEventListener("blur", hide);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });

  // What the pointer reads, a screen reader reads too.
  document.querySelectorAll("[data-tip][role]").forEach((mark) => mark.setAttribute("aria-label", mark.dataset.tip));

  // Training curves: the nearest value of each line at the pointer, read off its linear axes.
  const short = (value) => String(Number(value.toPrecision(4)));
  const valueAt = (axis, pixel) => axis[1] + (pixel - axis[0]) / (axis[2] - axis[0]) * (axis[3] - axis[1]);
  const placesOf = (line) => {
    const numbers = line.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    return numbers.filter((_, i) => i % 2 === 0).map((x, i) => [x, numbers[2 * i + 1]]);
  };
  for (const svg of document.querySelectorAll("svg.panel[data-x]")) {
    const [xAxis, yAxis] = [svg.dataset.x, svg.dataset.y].map((text) => text.split(" ").map(Number));
    let curves = null;
    const clear = () => {
      hide();
      svg.querySelectorAll(".cursor").forEach((dot) => dot.remove());
    };
    svg.addEventListener("pointermove", (event) => {
      curves ??= [...svg.querySelectorAll(".curve")].map((line) => ({ line, places: placesOf(line) }));
      clear();
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      const lines = [];
      for (const { line, places } of curves) {
        const [x, y] = places.reduce((best, place) => Math.abs(place[0] - at) < Math.abs(best[0] - at) ? place : best);
        if (!lines.length) lines.push(`${svg.dataset.xLabel} ${short(valueAt(xAxis, x))}`);
        lines.push(`${line.dataset.label}: ${short(valueAt(yAxis, y))}`);
        const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        dot.setAttribute("class", line.getAttribute("class").replace("curve", "cursor"));
        dot.setAttribute("cx", x);
        dot.setAttribute("cy", y);
        dot.setAttribute("r", "4");
        svg.append(dot);
      }
      show(lines.join("\n"), event.clientX, event.clientY);
    });
    svg.addEventListener("pointerleave", clear);
  }

  // Sorting: numbers as numbers, words as words, what is not known last.
  for (const button of document.querySelectorAll(".sortable button[data-column]")) {
    button.addEventListener("click", () => {
      const header = button.closest("th");
      const body = button.closest("table").tBodies[0];
      const column = Number(button.dataset.column);
      const down = header.getAttribute("aria-sort") === "ascending";
      header.parentElement.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        const text = cell.dataset.sort ?? cell.textContent;
        if (text === "" || text === "–") return undefined;
        if (!header.classList.contains("n")) return text;
        const plain = text.replace(/\s%$|\s\(best\)$|,/g, "").replace("−", "-");
        return isNaN(plain) ? undefined : plain;
      };
      const compare = (a, b) => {
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        const order = a !== "" && b !== "" && !isNaN(a) && !isNaN(b)
          ? a - b : a.localeCompare(b, undefined, { numeric: true });
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort((p, q) => compare(key(p), key(q))));
    });
  }

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Paper has nothing to click on.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("section > details:not([open])")];
    opened.forEach((element) => { element.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((element) => { element.open = false; }));
})();
