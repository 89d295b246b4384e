"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const bodies = all(".board tbody");

  // The tools: what is hidden is hidden in all tables and faint in all charts, and the others are ranked again.
  const tools = document.getElementById("tools"), search = document.getElementById("search");
  const family = document.getElementById("family"), sound = document.getElementById("sound");
  const again = document.getElementById("again"), left = new Set();
  tools.hidden = false;
  tools.addEventListener("submit", event => event.preventDefault());
  const choose = () => {
    const words = search.value.trim().toLowerCase(), only = sound.getAttribute("aria-pressed") === "true";
    for (const body of bodies) {
      const { name, status } = body.dataset;
      body.hidden = !name.toLowerCase().includes(words) || (only && status === "not converged") || left.has(name) ||
        Boolean(family?.value && family.value !== body.dataset.family);
    }
    const shown = new Set(bodies.filter(body => !body.hidden).map(body => body.dataset.name));
    for (const row of all("tr[data-name]")) row.hidden = !shown.has(row.dataset.name);
    for (const group of all("svg g[data-name]")) group.setAttribute("opacity", shown.has(group.dataset.name) ? 1 : 0.12);
    const hidden = bodies.filter(body => body.hidden).length;
    document.getElementById("told").textContent = hidden ? `${hidden} of ${bodies.length} rows are hidden` : "";
    again.hidden = !hidden;
    rank(shown);
  };
  search.addEventListener("input", choose);
  family?.addEventListener("change", choose);
  sound.addEventListener("click", () => {
    sound.setAttribute("aria-pressed", String(sound.getAttribute("aria-pressed") !== "true"));
    choose();
  });
  for (const button of all(".leave")) {
    button.hidden = false;
    button.addEventListener("click", () => { left.add(button.closest("tbody").dataset.name); choose(); });
  }
  again.addEventListener("click", () => {
    search.value = "";
    if (family) family.value = "";
    sound.setAttribute("aria-pressed", "false");
    left.clear();
    choose();
    search.focus();
  });

  // Ranks over datasets, as evaluation/ranks.py: ties share their mean rank, and p is corrected by Holm for all pairs.
  const numbers = JSON.parse(document.getElementById("ranknumbers").textContent);
  const rank = shown => {
    if (!numbers) return;
    const { methods, goodness, p, level } = numbers, kept = methods.map((_, i) => i).filter(i => shown.has(methods[i]));
    const place = (line, i) => 1 + kept.filter(k => line[k] < line[i]).length + (kept.filter(k => line[k] === line[i]).length - 1) / 2;
    const average = new Map(kept.map(i => [i, goodness.reduce((sum, line) => sum + place(line, i), 0) / goodness.length]));
    const pairs = kept.flatMap((i, a) => kept.slice(a + 1).map(k => [p[i][k], i, k])).sort((a, b) => a[0] - b[0]);
    const alike = new Map(kept.map(i => [i, []]));
    let largest = 0;
    pairs.forEach(([value, i, k], at) => {
      largest = Math.max(largest, Math.min(1, (pairs.length - at) * value));
      if (largest >= level) { alike.get(i).push(k); alike.get(k).push(i); }
    });
    const body = document.querySelector("#ranking tbody"), lines = new Map(all("tr", body).map(line => [line.dataset.name, line]));
    const order = kept.slice().sort((a, b) => average.get(a) - average.get(b) || a - b);
    for (const i of order) {
      const [, mean, others] = lines.get(methods[i]).children;
      mean.textContent = average.get(i).toFixed(2);
      const same = order.filter(k => alike.get(i).includes(k)).map(k => methods[k]);
      others.textContent = same.length && same.length === kept.length - 1 ? "all others" : same.join(", ") || "none";
      body.append(lines.get(methods[i]));
    }
    document.getElementById("diagram").hidden = kept.length < methods.length;
  };

  // Sorting: unknown values and controls stay at the end.
  for (const table of all(".board")) {
    const heads = all("thead th", table).filter(head => head.querySelector("span"));
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(head.firstChild);
      head.prepend(button);
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

  // Charts are saved as they are drawn, with black lines; tables as they are shown, and no word is a formula.
  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const quoted = word => '"' + word.trim().replace(/^(?=[=+@\t\r]|-(?!\d))/, "'").replaceAll('"', '""') + '"';
  for (const part of all(".save")) {
    part.hidden = false;
    const figure = part.closest("figure"), name = part.dataset.name.replace(/[^\w-]+/g, "_");
    for (const button of all("button", part))
      button.addEventListener("click", () => {
        if (button.textContent.includes("CSV")) {
          const lines = all("table tr", figure).filter(line => !line.hidden).map(line => [...line.children].map(cell => quoted(cell.textContent)).join(","));
          save(lines.join("\r\n") + "\r\n", "text/csv", name + ".csv");
        } else save(new XMLSerializer().serializeToString(figure.querySelector("svg")), "image/svg+xml", name + ".svg");
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
