// An action on many: the page goes on by itself; "Stop here" is quicker than the next request.
const form = document.querySelector("form[data-continue]");
if (form) {
  const timer = setTimeout(() => form.requestSubmit(), 600);
  form.addEventListener("submit", () => clearTimeout(timer));
  for (const link of document.querySelectorAll("a")) link.addEventListener("click", () => clearTimeout(timer));
}
