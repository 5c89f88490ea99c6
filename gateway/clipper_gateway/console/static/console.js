"use strict";
// The live regions of a page, the dialog of actions and the buttons that copy.
(() => {
  const SILENT_MS = 12000, RETRY_MS = 3000;
  const state = document.getElementById("connection");
  const dialog = document.getElementById("action-dialog");
  const clock = () => new Date().toISOString().slice(11, 19) + "Z";

  // --- swapping: what is the same stays, and with it focus, selection and scroll positions ---------------------------
  function patch(have, want) {
    if (have.isEqualNode(want)) return;
    if (have.nodeType !== Node.ELEMENT_NODE) {
      have.nodeValue = want.nodeValue;
      return;
    }
    for (const { name, value } of want.attributes) if (have.getAttribute(name) !== value) have.setAttribute(name, value);
    for (const { name } of [...have.attributes]) if (!want.hasAttribute(name)) have.removeAttribute(name);
    patchChildren(have, want);
  }

  // Rows have a key, by which each is found again when others come and go before it.
  function patchChildren(parent, fresh) {
    const keys = new Set([...fresh.childNodes].map((one) => one.dataset?.key));
    for (const one of [...parent.children]) if (!keys.has(one.dataset.key)) one.remove();
    let at = parent.firstChild;
    const remove = () => {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    };
    for (const want of [...fresh.childNodes]) {
      const key = want.dataset?.key;
      while (key && at && !at.dataset?.key) remove();
      const have = at?.dataset?.key === key ? at : key && [...parent.children].find((one) => one.dataset.key === key);
      if (have && have.nodeName === want.nodeName) {
        if (have !== at) parent.insertBefore(have, at);
        patch(have, want);
        at = have.nextSibling;
      } else {
        parent.insertBefore(want, at);
        if (want.nodeType === Node.ELEMENT_NODE) htmx.process(want);
      }
    }
    while (at) remove();
  }

  // --- live regions: a stream for as long as the page is visible -------------------------------------------------
  let stream = null, heardAt = 0, heardClock = "";

  function show(kind, text) {
    if (state && state.textContent !== text) [state.dataset.state, state.textContent] = [kind, text];
  }

  function heard() {
    [heardAt, heardClock] = [Date.now(), clock()];
    const stale = document.querySelector("#live_state [data-stale]");
    show(stale ? "stale" : "live", stale ? "stale" : "live");
  }

  function swap(regions) {
    const focused = document.activeElement;
    for (const [name, html] of Object.entries(regions)) {
      const region = document.getElementById(name);
      if (!region) return location.reload(); // another page now: it was loading, or what it shows has ended
      const fresh = document.createElement("template");
      fresh.innerHTML = html;
      patchChildren(region, fresh.content);
    }
    if (focused.isConnected && focused !== document.activeElement) focused.focus(); // a row that was moved
    heard();
  }

  async function refused() {
    close();
    const page = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if (page && (page.type === "opaqueredirect" || page.status === 401)) location.reload();
    else setTimeout(open, RETRY_MS);
  }

  function open() {
    if (stream || document.hidden) return;
    stream = new EventSource("/console/live?page=" + encodeURIComponent(location.pathname + location.search));
    stream.addEventListener("regions", (event) => swap(JSON.parse(event.data)));
    stream.addEventListener("beat", heard);
    stream.addEventListener("gone", () => { close(); show("stale", "gone"); });
    stream.onerror = () => {
      show("reconnecting", "reconnecting");
      if (stream && stream.readyState === EventSource.CLOSED) refused();
    };
  }

  function close() {
    if (stream) stream.close();
    stream = null;
  }

  if (document.querySelector("main[data-live]")) {
    open();
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
    window.addEventListener("pagehide", close);
    window.addEventListener("pageshow", open);
    setInterval(() => {
      if (stream && heardAt && Date.now() - heardAt > SILENT_MS) show("stale", "stale since " + heardClock);
    }, 1000);
  }

  // --- actions: what is previewed opens in the dialog ----------------------------------------------------------------
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target === dialog && !dialog.open) dialog.showModal();
  });
  document.addEventListener("htmx:sendError", () => show("reconnecting", "reconnecting"));

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-close]");
    if (!button) return;
    if ("close" in button.dataset) return dialog.close();
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
})();
