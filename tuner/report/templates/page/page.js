"use strict";
(() => {
  const all = (query, from = document) => [...from.querySelectorAll(query)];
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = kind || "";
    if (tag === "button") element.type = "button";
    return element;
  };

  // What the reader has chosen; a page that is renewed keeps it.
  const chosen = { tab: 0, find: "", outcome: "", column: null, down: false, trial: null };

  // Tabs: one piece of code at a time.
  const dressTabs = () => {
    for (const group of all(".tabs")) {
      const tabs = all(".tab", group), list = make("div", "", "tablist");
      list.setAttribute("role", "tablist");
      list.setAttribute("aria-label", "Code");
      const buttons = tabs.map((tab, place) => {
        const one = make("button", tab.querySelector("h4").textContent, "button");
        one.setAttribute("role", "tab");
        one.setAttribute("aria-controls", tab.id);
        tab.setAttribute("role", "tabpanel");
        tab.setAttribute("aria-label", one.textContent);
        one.addEventListener("click", () => choose(place));
        one.addEventListener("keydown", event => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (step) buttons[choose((place + step + tabs.length) % tabs.length)].focus();
        });
        list.append(one);
        return one;
      });
      const choose = at => {
        tabs.forEach((tab, place) => {
          tab.hidden = place !== at;
          buttons[place].setAttribute("aria-selected", place === at);
          buttons[place].tabIndex = place === at ? 0 : -1;
        });
        return chosen.tab = at;
      };
      group.querySelector("h3").after(list);
      choose(chosen.tab);
    }
  };

  // Code and commands: a button that copies.
  const dressCode = () => {
    for (const code of all("pre > code")) {
      const copy = make("button", "Copy", "button copy"), around = make("div", "", "copied");
      code.parentElement.replaceWith(around);
      around.append(code.parentElement, copy);
      copy.addEventListener("click", async () => {
        try { await navigator.clipboard.writeText(code.textContent); copy.textContent = "Copied"; }
        catch { getSelection().selectAllChildren(code); copy.textContent = "Selected"; }
        setTimeout(() => { copy.textContent = "Copy"; }, 1500);
      });
    }
  };

  // Trials: what a mark stands for, and where a row is drawn.
  const tip = document.getElementById("tip"), row = number => document.getElementById(`t${number}`);
  const light = number => {
    all(".on").forEach(element => element.classList.remove("on"));
    if (number === null) return;
    all(`[data-t="${number}"]`).forEach(element => element.classList.add("on"));
    row(number)?.classList.add("on");
  };
  const tell = number => {
    if (!row(number)) return `trial ${number}`;
    const names = all("#all thead th").map(head => head.textContent);
    const cells = [...row(number).cells].map(cell => cell.textContent);
    return `trial ${cells[0]}: ` + cells.slice(1).map((text, at) => at < 1 || at === 2 ? text : `${names[at + 1]} ${text}`).join("\n");
  };
  document.addEventListener("pointerover", event => {
    const mark = event.target.closest?.("[data-t]");
    tip.hidden = !mark;
    if (!mark) { light(chosen.trial); return; }
    light(mark.dataset.t);
    tip.textContent = tell(mark.dataset.t);
    tip.style.whiteSpace = "pre-line";
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 14 + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${below ? event.clientY + 14 : event.clientY - tip.offsetHeight - 10}px`;
  });
  document.addEventListener("click", event => {
    const mark = event.target.closest?.("[data-t]"), link = event.target.closest?.("[data-to]");
    if (mark && row(mark.dataset.t)) {
      light(chosen.trial = mark.dataset.t);
      row(chosen.trial).hidden = false;
      row(chosen.trial).scrollIntoView({ block: "center" });
      row(chosen.trial).querySelector("a").focus({ preventScroll: true });
    } else if (link) {
      event.preventDefault();
      light(chosen.trial = link.dataset.to);
      document.querySelector(`[data-t="${chosen.trial}"]`)?.scrollIntoView({ block: "center" });
    }
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") { light(chosen.trial = null); tip.hidden = true; }
  });

  // The table of trials: sorted by a column, filtered by words and outcome.
  const dressTrials = () => {
    const table = document.getElementById("all"), body = table?.tBodies[0];
    if (!table) return; // no trial has started
    const heads = all("thead th", table);
    const sort = (at, down) => {
      const key = row => {
        const cell = row.cells[at];
        return at === 0 ? Number(cell.textContent) : cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
      };
      const rows = [...body.rows].map(row => [key(row), row]);
      rows.sort(([a], [b]) => {
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number comes last
        return (typeof a === "number" ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
      });
      body.append(...rows.map(([, row]) => row));
      heads.forEach((head, place) => head.removeAttribute("aria-sort"));
      heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
      Object.assign(chosen, { column: heads[at].textContent, down });
    };
    heads.forEach((head, at) => {
      const turn = make("button", head.textContent);
      head.replaceChildren(turn);
      turn.addEventListener("click", () => sort(at, head.getAttribute("aria-sort") === "ascending"));
      if (chosen.column === head.textContent) sort(at, chosen.down);
    });
    const find = document.getElementById("find"), outcome = document.getElementById("outcome");
    const filter = () => {
      Object.assign(chosen, { find: find.value, outcome: outcome.value });
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = (outcome.value && row.dataset.o !== outcome.value) || !words.every(word => text.includes(word));
        shown += !row.hidden;
      }
      document.getElementById("found").textContent = `${shown} of ${body.rows.length} trials`;
    };
    find.addEventListener("input", filter);
    outcome.addEventListener("change", filter);
    find.form.addEventListener("submit", event => event.preventDefault());
    if (chosen.find || chosen.outcome) {
      find.value = chosen.find;
      if ([...outcome.options].some(option => option.value === chosen.outcome)) outcome.value = chosen.outcome;
      filter();
    }
  };

  const dress = () => {
    dressTabs();
    dressCode();
    dressTrials();
    light(chosen.trial);
  };
  document.addEventListener("renewed", dress);
  dress();
})();
