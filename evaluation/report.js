"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const bodies = all(".board tbody");

  // The tools: what is hidden is hidden in all tables.
  const search = document.getElementById("search"), sound = document.getElementById("sound");
  document.getElementById("tools").hidden = false;
  document.getElementById("tools").addEventListener("submit", event => event.preventDefault());
  const choose = () => {
    const words = search.value.trim().toLowerCase(), only = sound.getAttribute("aria-pressed") === "true";
    for (const body of bodies)
      body.hidden = !body.dataset.name.toLowerCase().includes(words) || (only && body.dataset.status === "not converged");
    const hidden = bodies.filter(body => body.hidden).length;
    document.getElementById("told").textContent = hidden ? `${hidden} of ${bodies.length} rows are hidden` : "";
  };
  search.addEventListener("input", choose);
  sound.addEventListener("click", () => {
    sound.setAttribute("aria-pressed", String(sound.getAttribute("aria-pressed") !== "true"));
    choose();
  });

  // Sorting: unknown values and controls stay at the end.
  for (const table of all(".board")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(other => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = body => {
          const words = column ? all("td", body)[column - 1].dataset.v : body.dataset.name;
          return column ? (words === "" ? NaN : Number(words)) : words;
        };
        const rank = body => (body.classList.contains("control") ? 2 : 0) + (Number.isNaN(value(body)) ? 1 : 0);
        const sorted = all("tbody", table).sort((a, b) => {
          if (rank(a) !== rank(b)) return rank(a) - rank(b);
          const [one, other] = [value(a), value(b)];
          const order = one < other ? -1 : one > other ? 1 : 0;
          return down ? -order : order;
        });
        table.append(...sorted);
      });
    });
  }

  // Charts are saved as they are drawn, with black lines.
  for (const button of all(".save")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const text = new XMLSerializer().serializeToString(button.closest("figure").querySelector("svg"));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
      link.download = button.dataset.name.replace(/[^\w-]+/g, "_") + ".svg";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // Bands: 16-bit codes, low byte first; 65535 is unknown.
  const UNKNOWN = 65535, MOST = 65534;
  const decoded = text => {
    const bytes = atob(text), codes = new Array(bytes.length / 2);
    for (let i = 0; i < codes.length; i++) codes[i] = bytes.charCodeAt(2 * i) + 256 * bytes.charCodeAt(2 * i + 1);
    return codes;
  };
  const sets = JSON.parse(document.getElementById("curves").textContent);
  for (const figure of all(".viewer")) {
    const set = sets[figure.dataset.at], plot = figure.querySelector("svg svg"), name = plot.namespaceURI;
    const wide = Number(plot.getAttribute("width")), high = Number(plot.getAttribute("height"));
    const n = set.points, count = set.replicas.length, x = decoded(set.x), select = figure.querySelector("select");
    const truth = decoded(set.truth), reference = decoded(set.reference), bands = {};
    const across = code => (wide * code / MOST).toFixed(1), up = code => (high * (2 - 3 * code / MOST)).toFixed(1);
    const part = (codes, level, replica) => codes.slice((level * count + replica) * n, (level * count + replica + 1) * n);
    let replica = 0;
    const line = codes => {
      let d = "", pen = "M";
      codes.forEach((code, i) => {
        if (code !== UNKNOWN) d += pen + across(x[i]) + " " + up(code);
        pen = code === UNKNOWN ? "M" : "L";
      });
      return d;
    };
    const area = (low, top) => {
      const known = x.map((_, i) => i).filter(i => low[i] !== UNKNOWN && top[i] !== UNKNOWN);
      const way = [...known.map(i => [x[i], low[i]]), ...known.reverse().map(i => [x[i], top[i]])];
      return way.length ? "M" + way.map(([a, b]) => across(a) + " " + up(b)).join("L") + "Z" : "";
    };
    const add = (d, attributes, inside = plot) => {
      const path = document.createElementNS(name, "path");
      for (const [key, value] of Object.entries({ d, ...attributes })) path.setAttribute(key, value);
      inside.append(path);
    };
    const stroke = { fill: "none", stroke: "currentColor" };
    const draw = () => {
      plot.replaceChildren();
      const method = set.methods[select.value], band = bands[select.value] ??= decoded(method.band);
      if (set.data[replica]) {
        const [a, b] = set.data[replica].map(decoded);
        add(a.map((code, i) => `M${across(code)} ${up(b[i])}h0`).join(""), { ...stroke, "stroke-width": 4, "stroke-linecap": "round", opacity: 0.3 });
      }
      if (reference.length) add(area(part(reference, 0, replica), part(reference, 1, replica)), { opacity: 0.22 });
      const group = document.createElementNS(name, "g");
      group.setAttribute("class", method.class);
      group.setAttribute("color", method.colour);
      group.setAttribute("fill", "currentColor");
      plot.append(group);
      add(area(part(band, 0, replica), part(band, 2, replica)), { opacity: 0.35 }, group);
      add(line(part(band, 1, replica)), { ...stroke, "stroke-width": 2 }, group);
      if (truth.length) add(line(part(truth, 0, replica)), { ...stroke, "stroke-dasharray": "5 4" });
      figure.querySelector("output").textContent = `replica ${set.replicas[replica]}` + (method.of === "y" ? ", of y" : "");
    };
    set.methods.forEach((method, i) => select.add(new Option(method.name, i)));
    const step = by => { replica = (replica + by + count) % count; draw(); };
    select.addEventListener("change", draw);
    for (const button of all("button", figure)) button.addEventListener("click", () => step(Number(button.dataset.step)));
    figure.addEventListener("keydown", event => {
      const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key], way = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if ((!side && !way) || (event.target === select && way)) return;
      event.preventDefault();
      if (side) return step(side);
      select.value = (Number(select.value) + way + set.methods.length) % set.methods.length;
      draw();
    });
    figure.hidden = false;
    draw();
  }
})();
