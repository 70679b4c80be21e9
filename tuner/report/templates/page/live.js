"use strict";
(() => {
  // A page that its server renews as trials end; what the reader looks at stays where it is.
  const told = document.getElementById("live"), OFTEN = 2000, SELDOM = 5000;
  let tag = told.dataset.tag, since = new Date(), timer = 0;
  const tell = problem => {
    const at = since.toLocaleTimeString();
    const text = problem ? `${problem} This is the study as it was at ${at}.` : `Live: renewed as trials end, last at ${at}.`;
    if (told.textContent !== text) told.textContent = text;
    told.classList.toggle("off", Boolean(problem));
  };

  // A place in the page that is found again in another version of it.
  const find = ([id, tag, at]) => document.getElementById(id)?.getElementsByTagName(tag)[at];
  const place = element => {
    const around = element.closest("[id]:not(tr):not(details)");
    const owner = around === element ? element.parentElement.closest("[id]") : around;
    return [owner.id, element.tagName, [...owner.getElementsByTagName(element.tagName)].indexOf(element)];
  };
  const inMain = query => [...document.querySelectorAll(`main ${query}`)];

  const renew = text => {
    const next = new DOMParser().parseFromString(text, "text/html");
    const open = inMain("details[open]").map(place);
    const scrolled = inMain("*").filter(e => e.scrollTop || e.scrollLeft).map(e => [place(e), e.scrollTop, e.scrollLeft]);
    const active = document.activeElement?.closest("main") ? document.activeElement : null;
    const focus = active && (active.id ? active.id : place(active));
    const caret = active?.selectionStart;
    const seen = inMain("figure[id], section[id]").filter(e => e.getBoundingClientRect().top <= 80).pop();
    const top = seen?.getBoundingClientRect().top;

    for (const part of ["nav", "main"]) document.querySelector(part).replaceWith(next.querySelector(part));
    document.title = next.title;
    document.dispatchEvent(new Event("renewed"));

    open.forEach(where => { const one = find(where); if (one) one.open = true; });
    scrolled.forEach(([where, top, left]) => find(where)?.scrollTo({ top, left, behavior: "instant" }));
    const again = focus && (typeof focus === "string" ? document.getElementById(focus) : find(focus));
    again?.focus({ preventScroll: true });
    if (caret != null) again?.setSelectionRange?.(caret, caret);
    const now = seen && document.getElementById(seen.id)?.getBoundingClientRect().top;
    if (now != null) scrollBy({ top: now - top, behavior: "instant" });
  };

  // Nothing is renewed under a reader who selects text or holds a mark.
  const isBusy = () => !getSelection().isCollapsed || !document.getElementById("tip").hidden;
  const ask = async () => {
    let wait = OFTEN;
    try {
      if (!isBusy()) {
        const answer = await fetch(location.pathname, { cache: "no-store", headers: { "If-None-Match": tag } });
        if (answer.status === 200) {
          const text = await answer.text();
          if (!isBusy()) {
            renew(text);
            tag = answer.headers.get("ETag");
            since = new Date();
          }
        } else if (answer.status !== 304) throw new Error(await answer.text());
        tell("");
      }
    } catch (error) {
      tell(error instanceof TypeError ? "The server does not answer." : error.message.trim());
      wait = SELDOM;
    }
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(ask, wait);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  tell("");
  timer = setTimeout(ask, OFTEN);
})();
