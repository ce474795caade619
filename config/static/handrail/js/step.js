// A step's page: what does not apply is out of the way, looks follow what is typed, paths are put in.
const form = document.getElementById("step");

// What only a call has a use for is hidden while it is empty and the step calls nobody.
const mode = form.querySelector("[name=execution_mode]");
const isFilled = (part) =>
  [...part.querySelectorAll("input, select, textarea")].some((input) => input.value.trim() !== "") ||
  part.querySelector(".hr-error, .hr-said p") !== null;
const showWhatApplies = () => {
  const callsNobody = mode.value === "" || mode.value === "CLIENT_ONLY";
  for (const part of form.querySelectorAll("[data-server]")) {
    part.hidden = callsNobody && !isFilled(part);
  }
};
mode.addEventListener("change", showWhatApplies);
showWhatApplies();

// The looks are the server's: it gets the form as it stands and sends parts of the page.
const url = form.dataset.lookUrl;
let asked = 0;
const look = async () => {
  const mine = (asked += 1);
  const answer = await fetch(url, { method: "POST", body: new FormData(form), headers: { "X-Requested-With": "fetch" } });
  if (!answer.ok || mine !== asked) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const fresh of page.querySelectorAll("[data-look]")) {
    for (const old of form.querySelectorAll(`[data-look="${CSS.escape(fresh.dataset.look)}"]`)) {
      if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.cloneNode(true).childNodes);
    }
  }
};
if (url) {
  let wait = 0;
  form.addEventListener("input", () => {
    window.clearTimeout(wait);
    wait = window.setTimeout(() => look().catch(() => undefined), 400);
  });
}

// A path goes where the person was last: as ${path} into texts, as it is into conditions.
const BARE = new Set(["when", "proceed_when", "status_expect"]);
const TEXTS = new Set(["title", "message", "trigger_endpoint", "headers", "app", "status_endpoint", "compensation_endpoint"]);
let last = form.querySelector("[name=message]");
form.addEventListener("focusin", (event) => {
  if (BARE.has(event.target.name) || TEXTS.has(event.target.name)) last = event.target;
});
for (const button of form.querySelectorAll("[data-path]")) {
  button.addEventListener("click", () => {
    const text = BARE.has(last.name) ? button.dataset.path : `\${${button.dataset.path}}`;
    last.focus();
    last.setRangeText(text, last.selectionStart, last.selectionEnd, "end");
    last.dispatchEvent(new Event("input", { bubbles: true }));
  });
}
