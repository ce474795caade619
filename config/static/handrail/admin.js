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

  document.addEventListener("DOMContentLoaded", () => localise(document));
  document.addEventListener("htmx:afterSwap", (event) => localise(event.target));
  document.addEventListener("submit", confirmFirst);
})();
