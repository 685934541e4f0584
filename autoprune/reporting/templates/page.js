"use strict";
(() => {
  const root = document.documentElement;
  const tip = document.getElementById("tip");

  // The theme: the system's, or the reader's own choice.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const show = (name) => {
    if (name === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", name);
    button.textContent = `Theme: ${name}`;
  };
  const remembered = () => {
    try { return localStorage.getItem("autoprune-theme"); } catch { return null; }
  };
  let theme = themes.includes(remembered()) ? remembered() : "auto";
  show(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    show(theme);
    try { localStorage.setItem("autoprune-theme", theme); } catch { /* the choice lasts until the page closes */ }
  });

  // Titles of marks become one tooltip, which the keyboard and screen readers reach as well.
  const texts = new WeakMap();
  for (const title of document.querySelectorAll(".plot title")) {
    texts.set(title.parentNode, title.textContent);
    title.remove();
  }
  let lit = [];
  const hide = () => {
    for (const each of lit) each.classList.remove("here", "lit");
    lit = [];
    tip.hidden = true;
  };
  const point = (mark) => {
    hide();
    const trial = mark.dataset.t;
    lit = trial === undefined ? [mark] : [mark, ...document.querySelectorAll(`[data-t="${trial}"]`)];
    for (const each of lit) each.classList.add("lit");
    mark.classList.add("here");
    tip.textContent = texts.get(mark);
    tip.hidden = false;
    beside(mark);
  };
  const beside = (mark) => {
    const box = mark.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 10;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.bottom + 10}px`;
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const marks = [...plot.querySelectorAll(".m")].filter((each) => texts.has(each));
    const middle = (each) => each.getBoundingClientRect().left;
    plot.addEventListener("pointerover", (event) => {
      const mark = event.target.closest(".m");
      if (mark && texts.has(mark)) point(mark);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    let ordered = null;
    let place = -1;
    plot.addEventListener("focus", () => { ordered = null; place = -1; });
    plot.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") return hide();
      if (!(event.key in steps) || !marks.length) return;
      event.preventDefault();
      ordered ??= [...marks].sort((a, b) => middle(a) - middle(b));
      place = Math.min(ordered.length - 1, Math.max(0, place + steps[event.key]));
      point(ordered[place]);
    });
  }
  // The keyboard may move the page to the chart that it has just reached.
  addEventListener("scroll", () => {
    if (lit.length && document.activeElement.contains(lit[0]) && document.activeElement !== document.body) beside(lit[0]);
    else hide();
  }, { passive: true });

  // Tables: sort by a column, and show the first rows alone until the reader wants all.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const most = Number(table.dataset.most);
    const shorten = () => [...body.rows].forEach((row, place) => row.classList.toggle("more", place >= most));
    if (body.rows.length > most) {
      shorten();
      table.classList.add("short");
      const all = document.createElement("button");
      all.type = "button";
      all.className = "all";
      const label = () => { all.textContent = table.classList.contains("short") ? `Show all ${body.rows.length} trials` : "Show fewer"; };
      label();
      all.addEventListener("click", () => { table.classList.toggle("short"); label(); });
      table.parentNode.after(all);
    }
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const sorter = document.createElement("button");
      sorter.type = "button";
      sorter.textContent = cell.textContent;
      cell.replaceChildren(sorter);
      sorter.addEventListener("click", () => {
        const falls = cell.getAttribute("aria-sort") !== "descending";
        for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", falls ? "descending" : "ascending");
        const key = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) => {
          const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
          if (Number.isNaN(x) && Number.isNaN(y)) return key(a).localeCompare(key(b));
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) ? (falls ? -1 : 1) : falls ? 1 : -1;
          return x - y;
        };
        body.append(...[...body.rows].sort((a, b) => (falls ? -1 : 1) * compare(a, b)));
        shorten();
      });
    });
  }

  for (const copy of document.querySelectorAll(".copy")) {
    const text = copy.parentNode.querySelector("code");
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(text);
      }
    });
  }

  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
})();
