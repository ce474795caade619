// On every page of the back office. Pages of their own bring modules from js/.
(() => {
  "use strict";

  // Times are shown in UTC; the title says when that was where the reader is.
  const localise = (root) => {
    for (const time of root.querySelectorAll("time.hr-moment[title='UTC']")) {
      const at = new Date(time.dateTime);
      time.title = `UTC; here ${at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" })}`;
    }
  };

  // <form data-confirm="Archive it?"> asks before it is sent.
  const confirmFirst = (event) => {
    const question = event.submitter?.dataset.confirm || event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  };

  // <form data-unsaved>: leaving with changes asks first. What is only looked at (data-sample) is none.
  const changed = new Set();
  const noteChange = (event) => {
    const form = event.target.closest("form[data-unsaved]");
    if (form && !event.target.closest("[data-sample]")) changed.add(form);
  };
  const askBeforeLeaving = (event) => {
    if (changed.size) event.preventDefault();
  };

  // Its text must not go to a server that answers with its sign-in page. Whether somebody is still signed in
  // is asked when they come back to the tab, and now and then while there are changes.
  const CHECK_EVERY_MS = 60_000;
  let isSignedOut = false;
  const tellOf = (form) => {
    form.querySelector("[data-signed-out]")?.remove();
    if (!isSignedOut) return;
    const note = document.createElement("p");
    const link = document.createElement("a");
    Object.assign(link, { href: "/admin/login/", target: "_blank", textContent: "Sign in in another tab" });
    Object.assign(note, { className: "hr-note hr-note-bad", role: "alert" });
    note.dataset.signedOut = "";
    note.append("You are signed out, so nothing can be saved. ", link, ", then come back: what you entered is still here.");
    form.prepend(note);
  };
  const lookWhetherSignedIn = async () => {
    const forms = document.querySelectorAll("form[data-unsaved]");
    if (!forms.length) return;
    const answer = await fetch("/admin/jsi18n/", { method: "HEAD", redirect: "manual", cache: "no-store" });
    const isOut = answer.type === "opaqueredirect";
    if (isOut === isSignedOut) return;
    isSignedOut = isOut;
    forms.forEach(tellOf);
  };
  // Who signed in in another tab got another token there: the forms of this one go on with it.
  const takeToken = () => {
    const token = document.cookie.match(/(?:^|; )csrftoken=(\w+)/)?.[1];
    if (!token) return;
    for (const field of document.querySelectorAll("[name=csrfmiddlewaretoken]")) field.value = token;
  };
  const comeBack = () => {
    takeToken();
    lookWhetherSignedIn().catch(() => undefined); // no server: the next look will tell
  };

  // A second click on the button sends nothing a second time.
  const SENT_FOR_MS = 5_000;
  const sent = new Set();
  const sendOnce = (event) => {
    const form = event.target;
    const isHeld = isSignedOut && form.matches("[data-unsaved]");
    if (!isHeld && !sent.has(form)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (isHeld) form.querySelector("[data-signed-out]").scrollIntoView({ block: "center" });
  };
  const noteSent = (event) => {
    const form = event.target;
    // A field named "method" stands before the form's own.
    if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
    changed.delete(form);
    sent.add(form);
    window.setTimeout(() => sent.delete(form), SENT_FOR_MS);
  };

  document.addEventListener("DOMContentLoaded", () => localise(document));
  document.addEventListener("htmx:afterSwap", (event) => localise(event.target));
  document.addEventListener("input", noteChange);
  document.addEventListener("submit", sendOnce, { capture: true });
  document.addEventListener("submit", confirmFirst);
  document.addEventListener("submit", noteSent);
  window.addEventListener("beforeunload", askBeforeLeaving);
  window.addEventListener("focus", comeBack);
  window.addEventListener("pageshow", () => sent.clear());
  window.setInterval(() => changed.size && comeBack(), CHECK_EVERY_MS);
})();
